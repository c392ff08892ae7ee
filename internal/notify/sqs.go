package notify

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"myrmidon"
	"myrmidon/internal/awsconf"
	"myrmidon/internal/pattern"
	"myrmidon/internal/sigv4"
)

const (
	// visibility is how long a message is invisible to others unless it is extended, which
	// happens each third of it: a process that was killed has its messages come again then.
	visibility = 2 * time.Minute
	// wait is how long a request for messages waits for one: the longest that SQS has.
	wait = 20 * time.Second
)

// Queue is a queue of SQS. Its methods may be called from many goroutines.
type Queue struct {
	url        string
	api        awsconf.JSON
	visibility time.Duration // whole seconds
}

var hostRegion = pattern.Of(`^(?:sqs|queue)\.([a-z0-9-]+)\.`)

// NewQueue returns the queue at an address: sqs://sqs.REGION.amazonaws.com/ACCOUNT/NAME, or
// sqs:// before the queue's whole URL. The query may have region and profile. It sends no
// request. Errors are permanent.
func NewQueue(ctx context.Context, address string) (*Queue, error) {
	refuse := func(why string) error {
		return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("this address of a queue cannot be used: %s", why),
			"an address is sqs://sqs.REGION.amazonaws.com/ACCOUNT/NAME; secrets come from the environment"))
	}
	rest, ok := strings.CutPrefix(address, "sqs://")
	if !ok {
		return nil, refuse("it does not begin with sqs://")
	}
	if !strings.HasPrefix(rest, "https://") && !strings.HasPrefix(rest, "http://") {
		rest = "https://" + rest
	}
	u, err := url.Parse(rest)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") == "" || u.User != nil {
		return nil, refuse("it names no queue")
	}
	from := awsconf.From{Region: u.Query().Get("region"), Profile: u.Query().Get("profile")}
	if m := hostRegion().FindStringSubmatch(u.Host); from.Region == "" && m != nil {
		from.Region = m[1]
	}
	cfg, err := awsconf.Load(ctx, "sqs", from)
	if err != nil {
		return nil, err
	}
	if cfg.Region == "" {
		return nil, refuse("its region is not known: add ?region=REGION, or set AWS_REGION")
	}
	if cfg.Credentials == nil {
		return nil, refuse("there are no credentials")
	}
	u.RawQuery = ""
	keys := awsconf.NewKeys(cfg.Credentials, func(ctx context.Context) (aws.CredentialsProvider, error) {
		again, err := awsconf.Load(ctx, "sqs", from)
		return again.Credentials, err
	})
	queue := u.String()
	u.Path, u.RawPath = "/", ""
	return &Queue{url: queue, visibility: visibility, api: awsconf.JSON{
		Endpoint: u.String(), Region: cfg.Region, Version: "1.0", Target: "AmazonSQS.", Most: maxAnswer,
		Keys: keys, Signer: sigv4.New(sigv4.Config{Service: "sqs", EncodePath: true}),
		Client: &http.Client{Timeout: wait + 30*time.Second},
	}}, nil
}

// String returns the queue's URL.
func (q *Queue) String() string { return q.url }

// Message is a message that was received, and is invisible to others for a while.
type Message struct {
	ID      string
	Body    []byte
	Times   int // how often it was received, about; 0 if the queue does not say
	receipt string
}

// attempts is how often a request is sent that failed for a moment: a message whose
// deletion failed would come again after its visibility.
const attempts = 5

// call sends a request, again after 100 ms, 200 ms and so on if it fails for a moment.
func (q *Queue) call(ctx context.Context, action string, in map[string]any, out any) (err error) {
	for n := range attempts {
		if err = q.once(ctx, action, in, out); err == nil || myrmidon.IsPermanent(err) {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond << n):
		case <-ctx.Done():
			return err
		}
	}
	return err
}

// Receive returns up to most messages (10 at most), and waits up to 20 s for the first.
func (q *Queue) Receive(ctx context.Context, most int) ([]Message, error) {
	var out struct {
		Messages []struct {
			MessageID     string `json:"MessageId"`
			Body          string `json:"Body"`
			ReceiptHandle string `json:"ReceiptHandle"`
			Attributes    struct {
				Times string `json:"ApproximateReceiveCount"`
			} `json:"Attributes"`
		} `json:"Messages"`
	}
	err := q.call(ctx, "ReceiveMessage", map[string]any{
		"MaxNumberOfMessages": min(max(most, 1), 10), "WaitTimeSeconds": int(wait.Seconds()), "VisibilityTimeout": int(q.visibility.Seconds()),
		"AttributeNames": []string{"ApproximateReceiveCount"},
	}, &out)
	var all []Message
	for _, m := range out.Messages {
		times, _ := strconv.Atoi(m.Attributes.Times) // 0: it is not known
		all = append(all, Message{ID: m.MessageID, Body: []byte(m.Body), Times: times, receipt: m.ReceiptHandle})
	}
	return all, err
}

// Delete ends a message.
func (q *Queue) Delete(ctx context.Context, m Message) error {
	return q.call(ctx, "DeleteMessage", map[string]any{"ReceiptHandle": m.receipt}, nil)
}

// Hide makes a message invisible to others for a time from now on; 0 gives it back.
func (q *Queue) Hide(ctx context.Context, m Message, d time.Duration) error {
	return q.call(ctx, "ChangeMessageVisibility", map[string]any{"ReceiptHandle": m.receipt, "VisibilityTimeout": int(d.Seconds())}, nil)
}

// Depth returns about how many messages are in the queue and not with anybody. It needs
// sqs:GetQueueAttributes.
func (q *Queue) Depth(ctx context.Context) (int64, error) {
	const name = "ApproximateNumberOfMessages"
	var out struct{ Attributes map[string]string }
	if err := q.call(ctx, "GetQueueAttributes", map[string]any{"AttributeNames": []string{name}}, &out); err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(out.Attributes[name], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("sqs: GetQueueAttributes of %s: %w", q.url, err)
	}
	return n, nil
}

// Keep keeps a message invisible until the function that it returns is called. failed is
// told of each time that this did not work: the message may then come to somebody else,
// too.
func (q *Queue) Keep(ctx context.Context, m Message, failed func(error)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(q.visibility / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := q.Hide(ctx, m, q.visibility); err != nil && ctx.Err() == nil {
				failed(err)
			}
		}
	}()
	return func() { cancel(); <-done }
}
