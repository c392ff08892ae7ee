package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/internal/testkit/sqsstub"
	"myrmidon/object"
)

const plain = `{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"logs"},"object":{"key":"a/b+c%2Bd%2541.gz","size":7,"eTag":"abc"}}},{"eventName":"ObjectRemoved:Delete","s3":{"bucket":{"name":"logs"},"object":{"key":"gone"}}}]}`

func wrapped(t *testing.T, body string) string {
	t.Helper()
	out, err := json.Marshal(map[string]string{"Type": "Notification", "Message": body})
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestNotificationsOfEachShape(t *testing.T) {
	one := []Object{{Bucket: "logs", Key: "a/b c+d%41.gz", ETag: "abc", Size: 7}}
	bridge := `{"version":"0","detail-type":"Object Created","source":"aws.s3","detail":{"bucket":{"name":"logs"},"object":{"key":"a/b c+d%41.gz","size":7,"etag":"abc"}}}`
	for name, c := range map[string]struct {
		body string
		want []Object
	}{
		"plain": {plain, one}, "by SNS": {wrapped(t, plain), one}, "by SNS, of EventBridge": {wrapped(t, bridge), one}, "EventBridge": {bridge, one},
		"a test":      {`{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"logs"}`, nil},
		"a test, SNS": {wrapped(t, `{"Service":"Amazon S3","Event":"s3:TestEvent"}`), nil},
		"a removal":   {strings.Replace(bridge, "Object Created", "Object Deleted", 1), nil},
		"no records":  {`{"Records":[]}`, nil},
	} {
		got, err := Parse([]byte(c.body))
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	for _, body := range []string{``, `[]`, `{}`, `"x"`, `{"Records":[{"eventName":"ObjectCreated:Put"}]}`, `{"Message":"x"}`, strings.Replace(plain, "%2B", "%zz", 1), wrapped(t, wrapped(t, wrapped(t, plain)))} {
		if _, err := Parse([]byte(body)); !errors.Is(err, ErrUnknown) || !myrmidon.IsPermanent(err) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(plain))
	f.Fuzz(func(t *testing.T, body []byte) {
		objects, err := Parse(body)
		for _, o := range objects {
			if o.Key == "" || strings.ContainsAny(o.Bucket, "/?&#@: ") || err != nil && !errors.Is(err, ErrUnknown) {
				t.Errorf("%+v, %v", o, err)
			}
		}
	})
}

func TestAQueue(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "a")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
	stub := new(sqsstub.Queue)
	srv := httptest.NewServer(stub)
	defer srv.Close()
	q, err := NewQueue(t.Context(), "sqs://"+srv.URL+"/1/logs?region=eu-west-1")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		stub.Put(fmt.Sprint(i))
	}
	all, err := q.Receive(t.Context(), 20)
	if err != nil || len(all) != 10 || string(all[3].Body) != "3" {
		t.Fatalf("%v, %v", all, err)
	}
	if rest, err := q.Receive(t.Context(), 10); err != nil || len(rest) != 2 {
		t.Fatalf("what was received is not hidden: %v, %v", rest, err)
	}
	if err := q.Delete(t.Context(), all[0]); err != nil || stub.Left() != 11 {
		t.Errorf("%v, %d left", err, stub.Left())
	}
	if err := q.Hide(t.Context(), all[1], 0); err != nil {
		t.Error(err)
	}
	if again, err := q.Receive(t.Context(), 10); err != nil || len(again) != 1 || again[0].ID != all[1].ID {
		t.Errorf("%v, %v", again, err)
	}
	gone, err := NewQueue(t.Context(), "sqs://"+srv.URL+"/1/other?region=eu-west-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gone.Receive(t.Context(), 1); !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
		t.Error(err)
	}
	for _, bad := range []string{"https://x/y", "sqs://", "sqs://host", "sqs://u:secret@host/1/q"} {
		if _, err := NewQueue(t.Context(), bad); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if q, err := NewQueue(t.Context(), "sqs://sqs.eu-central-1.amazonaws.com/1/logs"); err != nil || q.api.Region != "eu-central-1" {
		t.Error(q, err)
	}
}

func TestEqualTimesAreNotMissed(t *testing.T) {
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	info := func(key string, minutes int) object.Info {
		return object.Info{Key: key, ETag: key, Modified: at.Add(time.Duration(minutes) * time.Minute)}
	}
	seen := new(Seen)
	if !seen.New(info("a", 0), at) || seen.New(info("old", -1), at) {
		t.Error("what begins is not as it should be")
	}
	finish := func(o, pending object.Info) { seen.Finish(o); seen.Advance(pending.Modified) }
	end := info("", 1000) // nothing is pending
	finish(info("a", 0), end)
	// It survives a restart.
	data, err := json.Marshal(seen)
	if err != nil {
		t.Fatal(err)
	}
	seen = new(Seen)
	if err := json.Unmarshal(data, seen); err != nil {
		t.Fatal(err)
	}
	if seen.New(info("a", 0), at) || !seen.New(info("b", 0), at) {
		t.Error("of two objects of one moment the second is missed, or the first comes twice")
	}
	if o := info("a", 0); true {
		o.ETag = "other"
		if !seen.New(o, at) {
			t.Error("an object that was replaced is missed")
		}
	}
	// While an object is pending, the mark stays at it.
	finish(info("c", 600), info("b", 0))
	if !seen.New(info("b", 0), seen.After(at)) || seen.New(info("c", 600), seen.After(at)) {
		t.Error("an object that was pending is missed")
	}
	finish(info("b", 0), end)
	if seen.New(info("x", 500), seen.After(at)) || len(seen.Done) != 1 {
		t.Errorf("the mark does not advance: %v", seen.Done)
	}
}
