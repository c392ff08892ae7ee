// Package notify tells which objects have come: by notifications of S3 in a queue (SQS),
// plain, wrapped by SNS or as events of EventBridge, and by listing a prefix again and
// again. It is for every workload that follows a bucket.
//
// # Promises
//
// A message is deleted only when whoever asked for it says that its objects are done, and
// stays invisible to others until then. A notification may come several times, and late:
// whoever handles it does so by ETag.
//
// It needs sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility on the
// queue.
package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"myrmidon"
)

// Object is an object that has come.
type Object struct {
	Bucket, Key string
	ETag        string // without quotes; "" if the notification does not say it
	Size        int64
}

// ErrUnknown is wrapped by the error of a message that is no notification of S3.
var ErrUnknown = errors.New("notify: this message is no notification of S3")

// record is one of a message of S3. Source: Amazon S3 User Guide, "Event message structure".
type record struct {
	EventName string `json:"eventName"`
	S3        *struct {
		Bucket struct {
			Name string `json:"name"`
		} `json:"bucket"`
		Object struct {
			Key  string `json:"key"`
			Size int64  `json:"size"`
			ETag string `json:"eTag"`
		} `json:"object"`
	} `json:"s3"`
}

// message is any of the shapes that a notification comes in.
type message struct {
	Records []record `json:"Records"`
	Event   string   `json:"Event"` // s3:TestEvent

	// SNS. Source: Amazon SNS Developer Guide, "Parsing message formats".
	Type    string  `json:"Type"`
	Message *string `json:"Message"`

	// EventBridge. Source: Amazon S3 User Guide, "EventBridge event message structure".
	Source     string `json:"source"`
	DetailType string `json:"detail-type"`
	Detail     *struct {
		Bucket struct {
			Name string `json:"name"`
		} `json:"bucket"`
		Object struct {
			Key  string `json:"key"`
			Size int64  `json:"size"`
			ETag string `json:"etag"`
		} `json:"object"`
	} `json:"detail"`
}

// maxWraps bounds how often a message may be wrapped.
const maxWraps = 3

// Parse returns the objects that a message tells of as created: none for s3:TestEvent and for
// what was removed. Keys are as they are in the bucket: S3 writes them with + for a space and
// escapes, EventBridge as they are. The error is permanent, and wraps [ErrUnknown].
func Parse(body []byte) ([]Object, error) {
	for range maxWraps {
		var m message
		if err := json.Unmarshal(body, &m); err != nil {
			return nil, unknown("it is no JSON object")
		}
		switch {
		case m.Event == "s3:TestEvent":
			return nil, nil
		case m.Records != nil:
			return created(m.Records)
		case m.Source == "aws.s3" && m.Detail != nil:
			if m.DetailType != "Object Created" {
				return nil, nil
			}
			o := Object{m.Detail.Bucket.Name, m.Detail.Object.Key, m.Detail.Object.ETag, m.Detail.Object.Size}
			if o.Bucket == "" || o.Key == "" {
				return nil, unknown("it names no object")
			}
			return []Object{o}, nil
		case m.Message != nil:
			body = []byte(*m.Message)
		default:
			return nil, unknown("it has neither Records nor a detail of aws.s3")
		}
	}
	return nil, unknown("it is wrapped too often")
}

func created(records []record) (out []Object, err error) {
	for _, r := range records {
		if r.S3 == nil {
			return nil, unknown("a record is not of S3")
		}
		if !strings.HasPrefix(strings.TrimPrefix(r.EventName, "s3:"), "ObjectCreated:") {
			continue
		}
		key, err := url.QueryUnescape(r.S3.Object.Key)
		if err != nil {
			return nil, unknown("a key has a % that is no escape")
		}
		if key == "" || r.S3.Bucket.Name == "" {
			return nil, unknown("a record names no object")
		}
		out = append(out, Object{r.S3.Bucket.Name, key, r.S3.Object.ETag, r.S3.Object.Size})
	}
	return out, nil
}

func unknown(why string) error {
	return myrmidon.Permanent(fmt.Errorf("%w: %s", ErrUnknown, why))
}
