// Package sqsstub is the part of Amazon SQS that a reader of a queue uses, inside the
// process: ReceiveMessage, DeleteMessage, ChangeMessageVisibility and GetQueueAttributes by the
// JSON protocol, with visibility as SQS has it. Source: Amazon SQS API reference. Signatures are looked
// for, not at.
//
// The package is for tests.
package sqsstub

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Queue is a queue, and the handler of its requests.
type Queue struct {
	// Fail, unless it is nil, says which requests fail, with a status.
	Fail func(action string) int
	// Refuse, unless it is nil, says of a request with which status and code it is refused; a
	// status of 0 lets it pass.
	Refuse func(w http.ResponseWriter, r *http.Request, action string) (status int, code string)

	mu       sync.Mutex
	messages []*message
	receipts int
	deleted  int
	received int
	hidden   int
}

type message struct {
	id, body, receipt string
	visible           time.Time
	times             int
}

// Put adds a message.
func (q *Queue) Put(body string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.messages = append(q.messages, &message{id: fmt.Sprint("m", len(q.messages)+q.deleted), body: body})
}

// Expire ends the terms of all messages, as time would: they come again.
func (q *Queue) Expire() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range q.messages {
		m.visible = time.Time{}
	}
}

// Left returns how many messages are in the queue, visible or not.
func (q *Queue) Left() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.messages)
}

// Deleted returns how many messages were deleted.
func (q *Queue) Deleted() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.deleted
}

// Received returns how often a message was received.
func (q *Queue) Received() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.received
}

// Term returns for how long the only message is hidden from now on.
func (q *Queue) Term() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.messages) != 1 {
		return 0
	}
	return time.Until(q.messages[0].visible)
}

// Hidden returns how often a message's visibility was changed.
func (q *Queue) Hidden() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.hidden
}

// ServeHTTP answers a request.
func (q *Queue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	action := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	var in struct {
		QueueUrl, ReceiptHandle                                 string
		MaxNumberOfMessages, WaitTimeSeconds, VisibilityTimeout int
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || !strings.Contains(r.Header.Get("Authorization"), "/sqs/aws4_request") {
		refuse(w, http.StatusForbidden, "com.amazon.coral.service#AccessDeniedException")
		return
	}
	if !strings.HasSuffix(in.QueueUrl, "/logs") {
		refuse(w, http.StatusBadRequest, "com.amazonaws.sqs#QueueDoesNotExist")
		return
	}
	if q.Fail != nil {
		if status := q.Fail(action); status != 0 {
			refuse(w, status, "com.amazonaws.sqs#ServiceUnavailable")
			return
		}
	}
	if q.Refuse != nil {
		if status, code := q.Refuse(w, r, action); status != 0 {
			refuse(w, status, code)
			return
		}
	}
	switch action {
	case "GetQueueAttributes":
		fmt.Fprintf(w, `{"Attributes":{"ApproximateNumberOfMessages":"%d"}}`, q.visible())
	case "ReceiveMessage":
		q.receive(w, r, in.MaxNumberOfMessages, time.Duration(in.WaitTimeSeconds)*time.Second, time.Duration(in.VisibilityTimeout)*time.Second)
	case "DeleteMessage", "ChangeMessageVisibility":
		q.mu.Lock()
		defer q.mu.Unlock()
		for i, m := range q.messages {
			if m.receipt != in.ReceiptHandle {
				continue
			}
			if action == "DeleteMessage" {
				q.messages = append(q.messages[:i], q.messages[i+1:]...)
				q.deleted++
			} else {
				m.visible = time.Now().Add(time.Duration(in.VisibilityTimeout) * time.Second)
				q.hidden++
			}
			break
		}
		fmt.Fprint(w, "{}")
	default:
		refuse(w, http.StatusBadRequest, "com.amazonaws.sqs#UnsupportedOperation")
	}
}

// visible counts the messages that would be received now.
func (q *Queue) visible() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range q.messages {
		if !m.visible.After(time.Now()) {
			n++
		}
	}
	return n
}

func (q *Queue) receive(w http.ResponseWriter, r *http.Request, most int, wait, hide time.Duration) {
	type answer struct {
		MessageId, Body, ReceiptHandle string
		Attributes                     map[string]string
	}
	for until := time.Now().Add(wait); ; {
		q.mu.Lock()
		var out []answer
		for _, m := range q.messages {
			if len(out) < most && !m.visible.After(time.Now()) {
				q.receipts++
				q.received++
				m.times++
				m.receipt, m.visible = fmt.Sprint("r", q.receipts), time.Now().Add(hide)
				out = append(out, answer{m.id, m.body, m.receipt, map[string]string{"ApproximateReceiveCount": fmt.Sprint(m.times)}})
			}
		}
		q.mu.Unlock()
		if len(out) > 0 || time.Now().After(until) || r.Context().Err() != nil {
			_ = json.NewEncoder(w).Encode(map[string]any{"Messages": out}) // a client that has gone
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-r.Context().Done():
		}
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"__type":%q,"message":"no"}`, code)
}
