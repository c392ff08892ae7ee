// Package notify tells which objects have come: by notifications of S3 (plain, wrapped by SNS,
// or events of EventBridge) in a queue of SQS or posted to a webhook, and by listing a prefix
// again and again. It is for every workload that follows a bucket: a [Feed] is a source that is
// followed, [Do] what is to be done with an object.
//
// # Promises
//
// Each object that a source tells of is handed over until it is done; so objects come at least
// once, and [Done] knows those that come again. A message is deleted when its objects are done,
// and stays invisible to others until then. An event of a webhook is on disk before it is
// answered, and given up, if that is wanted, only after a day of failures of its own. A prefix is
// looked at from where it was left.
//
// A source that fails is tried again after 1 s, 2 s and so on, up to a minute, and does not hold
// up others.
//
// It needs sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility on a queue, and
// sqs:GetQueueAttributes to say how many messages wait.
package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"myrmidon"
	"myrmidon/internal/pattern"
)

// Object is an object that has come.
type Object struct {
	Bucket, Key string
	ETag        string // without quotes; "" if the notification does not say it
	Size        int64
	// Sequencer orders the events of a key, and is the same if one event comes twice; "" if
	// the source has none.
	Sequencer string
}

// bucketName is what buckets may be called: what a name holds beside that would be taken for
// another part of an address. Source: Amazon S3 User Guide, "General purpose bucket naming
// rules", with the names of old buckets.
var bucketName = pattern.Of(`^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$`)

// valid says why an object cannot be one.
func (o Object) valid() error {
	switch {
	case o.Bucket == "" || o.Key == "":
		return unknown("it names no object")
	case !bucketName().MatchString(o.Bucket):
		return unknown("it names a bucket that cannot be")
	}
	return nil
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
			Key       string `json:"key"`
			Size      int64  `json:"size"`
			ETag      string `json:"eTag"`
			Sequencer string `json:"sequencer"`
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
			Key       string `json:"key"`
			Size      int64  `json:"size"`
			ETag      string `json:"etag"`
			Sequencer string `json:"sequencer"`
		} `json:"object"`
	} `json:"detail"`
}

// maxWraps bounds how often a message may be wrapped.
const maxWraps = 3

// Parse returns the objects that a message tells of as created: none for s3:TestEvent and for
// what was removed. Keys are as they are in the bucket: S3 writes them with + for a space and
// escapes, EventBridge as they are. The error is permanent, and wraps [ErrUnknown]; objects
// that come with one are of the records beside that which it tells of.
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
			d := m.Detail.Object
			o := Object{m.Detail.Bucket.Name, d.Key, strings.Trim(d.ETag, `"`), d.Size, d.Sequencer}
			if err := o.valid(); err != nil {
				return nil, err
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
	for i, r := range records {
		if r.S3 == nil {
			err = errors.Join(err, unknown(fmt.Sprintf("record %d is not of S3", i)))
			continue
		}
		if !strings.HasPrefix(strings.TrimPrefix(r.EventName, "s3:"), "ObjectCreated:") {
			continue
		}
		in := r.S3.Object
		key, bad := url.QueryUnescape(in.Key)
		if bad != nil {
			err = errors.Join(err, unknown(fmt.Sprintf("the key of record %d has a %% that is no escape", i)))
			continue
		}
		o := Object{r.S3.Bucket.Name, key, strings.Trim(in.ETag, `"`), in.Size, in.Sequencer}
		if bad := o.valid(); bad != nil {
			err = errors.Join(err, fmt.Errorf("record %d: %w", i, bad))
			continue
		}
		out = append(out, o)
	}
	return out, err
}

func unknown(why string) error {
	return myrmidon.Permanent(fmt.Errorf("%w: %s", ErrUnknown, why))
}
