// Package kinesis delivers records to a stream of Amazon Kinesis by PutRecords: [Sink] is a
// sink.Sink.
//
// # What is promised
//
// A request may be answered with success and hold records that failed; they are told by their
// place and are all that is sent again. A record that is throttled (a shard takes 1,000 records
// and 1 MB a second) counts as pushed back and is never given up for that. A record that is too
// large is permanent, and so is an error of the stream, of rights and of keys. Kinesis keeps
// doubles: whoever reads the stream tells them by their ID.
//
// Records of one Key go to one shard. Kinesis promises no order within a request: where order
// matters set sink.BatcherConfig.Ordered, which sends one record of each key at a time.
//
// # What it needs
//
// The action kinesis:PutRecords on the stream. Region, keys and endpoint come from the standard
// environment and files of AWS: AWS_REGION, AWS_PROFILE, AWS_ACCESS_KEY_ID,
// AWS_ENDPOINT_URL_KINESIS, AWS_ENDPOINT_URL and so on. A session that has expired is looked for
// anew, and a clock that is wrong is corrected by the server's.
//
// # Limits
//
// 500 records and 5 MiB a request, partition keys counted, and 1 MiB a record (Kinesis Data
// Streams API reference, PutRecords; streams can be set to more since 2025). A key of more than
// 256 characters is replaced by its hash, and a missing one by the ID's.
package kinesis

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"

	"myrmidon"
	"myrmidon/internal/awsconf"
	"myrmidon/internal/sigv4"
	"myrmidon/sink"
)

// Limits of PutRecords: see the package.
const (
	maxRecords = 500
	maxBytes   = 5 << 20
	maxRecord  = 1 << 20
	maxKey     = 256 // characters
)

// pushedBack is the pause after a record was throttled: limits are counted by the second.
const pushedBack = time.Second

// Config says which stream. All but Stream may be zero.
type Config struct {
	Stream   string
	Profile  string // of the AWS configuration files; "" means AWS_PROFILE or default
	Region   string // "" means AWS_REGION or the profile's; us-east-1 with an endpoint
	Endpoint string // "" means AWS_ENDPOINT_URL_KINESIS, AWS_ENDPOINT_URL or Kinesis itself
	// Timeout bounds a request: 30 s if 0.
	Timeout time.Duration
}

// Sink delivers to a stream. See [New].
type Sink struct {
	stream string
	api    awsconf.JSON // its Keys are nil if there are none
	closed atomic.Bool
	pool   sync.Pool // of *[]byte

	throttled atomic.Uint64
}

// Stats counts from the beginning.
type Stats struct {
	Requests  uint64 `json:"requests"`
	Throttled uint64 `json:"throttled"` // records, each time
}

// New returns the sink of a stream. It reads the environment and the configuration files and
// sends nothing. Errors are permanent.
func New(ctx context.Context, cfg Config) (*Sink, error) {
	if err := checkStream(cfg.Stream); err != nil {
		return nil, err
	}
	who := "kinesis: stream " + cfg.Stream
	from := awsconf.From{Profile: cfg.Profile, Region: cfg.Region}
	loaded, err := awsconf.Load(ctx, who, from)
	if err != nil {
		return nil, err
	}
	endpoint := cmp.Or(cfg.Endpoint, os.Getenv("AWS_ENDPOINT_URL_KINESIS"), aws.ToString(loaded.BaseEndpoint))
	region := loaded.Region
	switch {
	case region == "" && endpoint != "":
		region = "us-east-1"
	case region == "":
		return nil, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s: no region is set", who),
			"set AWS_REGION or the region of the profile, or write kinesis://"+cfg.Stream+"?region=REGION"))
	}
	if endpoint == "" {
		endpoint = "https://kinesis." + region + ".amazonaws.com"
		if strings.HasPrefix(region, "cn-") {
			endpoint += ".cn"
		}
	}
	if err := CheckEndpoint(endpoint); err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 16
	var keys *awsconf.Keys
	if loaded.Credentials != nil {
		keys = awsconf.NewKeys(loaded.Credentials, func(ctx context.Context) (aws.CredentialsProvider, error) {
			again, err := awsconf.Load(ctx, who, from)
			return again.Credentials, err
		})
	}
	return &Sink{stream: cfg.Stream, api: awsconf.JSON{
		Endpoint: strings.TrimSuffix(endpoint, "/") + "/", Region: region, Version: "1.1", Target: "Kinesis_20131202.",
		Most: maxAnswer, Keys: keys, Signer: sigv4.New(sigv4.Config{Service: "kinesis", EncodePath: true}),
		Client: &http.Client{
			Transport: transport, Timeout: cmp.Or(cfg.Timeout, 30*time.Second),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}}, nil
}

// checkStream says whether a stream may have that name.
func checkStream(name string) error {
	ok := name != "" && len(name) <= 128
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.-", c) >= 0)
	}
	if ok {
		return nil
	}
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("kinesis: this is not the name of a stream"),
		"an address is kinesis://stream?region=REGION; a name has letters, digits, _, . and -; keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role"))
}

// CheckEndpoint says whether an endpoint may be used and shown. The error is permanent.
func CheckEndpoint(endpoint string) error { return awsconf.CheckEndpoint("kinesis", endpoint) }

// String returns the stream's address.
func (s *Sink) String() string { return "kinesis://" + s.stream }

// Traits are the limits of PutRecords.
func (*Sink) Traits() sink.Traits { return sink.Traits{Records: maxRecords, Bytes: maxBytes} }

// Stats returns the counts of this moment.
func (s *Sink) Stats() Stats {
	return Stats{Requests: s.api.Sent(), Throttled: s.throttled.Load()}
}

// Close ends the connections.
func (s *Sink) Close() error {
	s.closed.Store(true)
	s.api.Client.CloseIdleConnections()
	return nil
}

// Send puts the records, in as many requests as they need.
func (s *Sink) Send(ctx context.Context, records []sink.Record) error {
	if s.closed.Load() {
		return sink.ErrClosed
	}
	good, at, refused := sink.Sort(records, check)
	return sink.Merge(len(records), at, refused, s.send(ctx, good))
}

// check refuses also what is too large.
func check(r sink.Record) error {
	if err := sink.Check(r); err != nil {
		return err
	}
	if n := len(r.Data) + len(keyOf(r)); n > maxRecord {
		err := fmt.Errorf("kinesis: record %.100q of %d bytes with its key: Kinesis takes %d", r.ID, n, maxRecord)
		return myrmidon.Permanent(myrmidon.WithHint(err, "leave fields out, or keep the document in a bucket and send its address"))
	}
	return nil
}

// keyOf returns the partition key of a record.
func keyOf(r sink.Record) string {
	key := cmp.Or(r.Key, r.ID)
	if key != "" && (len(key) <= maxKey || utf8.RuneCountInString(key) <= maxKey) {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	if key == "" {
		sum = sha256.Sum256(r.Data)
	}
	return hex.EncodeToString(sum[:16])
}

func (s *Sink) send(ctx context.Context, records []sink.Record) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("kinesis: put to %s: %w", s.stream, err)
	}
	size := func(r sink.Record) int { return len(r.Data) + len(keyOf(r)) }
	most := sink.Traits{Records: maxRecords, Bytes: maxBytes}
	return sink.InParts(records, size, most, func(part []sink.Record) ([]sink.Failed, error) { return s.put(ctx, part) })
}

// encode appends the body of a request.
func (s *Sink) encode(b []byte, records []sink.Record) ([]byte, error) {
	b = append(b, `{"StreamName":"`...)
	b = append(b, s.stream...) // which holds nothing to be escaped
	b = append(b, `","Records":[`...)
	for i, r := range records {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"Data":"`...)
		b = base64.StdEncoding.AppendEncode(b, r.Data)
		b = append(b, `","PartitionKey":`...)
		key, err := json.Marshal(keyOf(r))
		if err != nil {
			return b, err
		}
		b = append(append(b, key...), '}')
	}
	return append(b, "]}"...), nil
}

// put sends one request. It returns the records that were not taken, or an error for all.
func (s *Sink) put(ctx context.Context, records []sink.Record) ([]sink.Failed, error) {
	buf, _ := s.pool.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	body, err := s.encode((*buf)[:0], records)
	if err != nil {
		return nil, err
	}
	answer, err := s.call(ctx, body)
	if err != nil {
		return nil, err // the transport may still read body
	}
	*buf = body
	s.pool.Put(buf)
	var said struct {
		Records []struct{ ErrorCode, ErrorMessage string }
	}
	if err := json.Unmarshal(answer, &said); err != nil {
		return nil, fmt.Errorf("kinesis: %s answers what is no answer to PutRecords: %w", s.stream, err)
	}
	if len(said.Records) != len(records) {
		return nil, fmt.Errorf("kinesis: %s answers with %d results for %d records", s.stream, len(said.Records), len(records))
	}
	var failed []sink.Failed
	for i, r := range said.Records {
		if r.ErrorCode == "" {
			continue
		}
		err := fmt.Errorf("kinesis: record %.100q is answered with %s: %.300s", records[i].ID, r.ErrorCode, r.ErrorMessage)
		if isThrottle(r.ErrorCode) {
			s.throttled.Add(1)
			err = myrmidon.RetryAfter(err, pushedBack)
		}
		failed = append(failed, sink.Failed{Index: i, Err: err})
	}
	return failed, nil
}
