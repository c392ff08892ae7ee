// Package s3 keeps objects in a bucket of Amazon S3, or of a server that speaks its
// protocol (MinIO, Ceph, R2, versitygw): [Store] is an object.Store, object.Copier,
// object.Pager, object.Importer, object.Describer, object.Keeper and object.Checksummer.
//
// # Where settings come from
//
// The standard environment and files of AWS tools: AWS_PROFILE, AWS_REGION,
// AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_MAX_ATTEMPTS,
// AWS_CA_BUNDLE and so on, profiles, SSO, roles of machines and containers. [Config]
// overrides profile, region and endpoint. With an endpoint of one's own, buckets are
// addressed by path. Secrets are never logged, nor part of an error.
//
// # Two clients
//
// Listing, HEAD, GET, PUT and copying, of which a busy store sends thousands a second, are
// requests of our own over net/http: the AWS SDK takes several times as much CPU for each
// (BenchmarkClients prints both, and net/http alone). The SDK says where the bucket is, with
// which credentials, and what is worth another attempt, and sends all other requests.
// MYRMIDON_S3_CLIENT=sdk, or [Config].Client, leaves everything to the SDK, should a server
// not get on with our requests; all tests run with both.
//
// # What it needs
//
// s3:GetObject to read, s3:ListBucket to list (and to tell a missing object from a
// forbidden one), s3:PutObject and s3:AbortMultipartUpload to write, s3:DeleteObject
// to delete; copying also s3:GetObjectTagging of the source and s3:PutObjectTagging. A
// bucket should have a lifecycle rule that aborts incomplete multipart uploads: one is left
// where a process is killed in the middle of a large Put or copy.
//
// # What is promised
//
// A Put is one request, or a multipart upload that appears when it is complete and is
// aborted when it fails. A reader sees one version: a body that breaks off is resumed
// by range under the condition that the ETag is the same. Bytes are checked by CRC32
// on the way in, and on the way out where the server keeps a checksum of the whole object.
// A listing that is out of order, repeats itself or has not as many objects as it says is an
// error.
// [Store.PutWith] sums the body while it is read, so that not even a fault of this machine's
// memory goes unnoticed, and has S3 compare.
//
// Requests that fail for a moment are sent again, five times in all, before an error is
// returned; all stores of a bucket together may do so 100 times, and then once for each five
// requests that are answered, so that a storm of 503 is not multiplied. A session that has
// expired is looked for anew, once, in the cache, the environment and the files. A clock that
// is wrong is corrected by the server's.
//
// # Limits
//
// Keys are UTF-8 (Amazon S3 User Guide, "Naming Amazon S3 objects"). List gives no
// attributes: no listing of S3 has them. It yields also what [object.CheckKey]
// refuses (a//b, the folder marker a/): [Store.Import] and [Store.DeleteMany] take such
// keys, all else does not. A copy keeps content type, cache control, the other headers of
// content, user metadata and tags; not the ACL, nor a lock, nor the class of storage. Redirects
// are not followed: an error names the bucket's region. Directory buckets (S3 Express) list
// without order and are refused.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"myrmidon"
	"myrmidon/internal/awsconf"
	"myrmidon/object"
)

// Limits of S3 (Amazon S3 User Guide, "Amazon S3 multipart upload limits").
const (
	minPart  = 5 << 20
	maxPart  = 5 << 30
	maxCopy  = 5 << 30 // of one CopyObject
	maxParts = 10_000
)

// Config says which bucket, and how. All but Bucket may be zero.
type Config struct {
	Bucket string
	// Prefix is put before every key, with a "/" between: the store is a folder of
	// the bucket.
	Prefix string

	Profile  string // of the AWS configuration files; "" means AWS_PROFILE or default
	Endpoint string // http://host:port; "" means AWS_ENDPOINT_URL_S3 or S3 itself
	Region   string // "" means AWS_REGION or the profile's; us-east-1 with an endpoint
	Role     string // ARN of a role that the profile's or environment's keys may assume; "" means none

	// PartSize is the size of the parts of large objects, bytes, and what is sent as
	// one request: 16 MiB if 0, at least 5 MiB. Parts grow where 10,000 of them would
	// not hold the object.
	PartSize int64
	// Parallel is how many parts of one object are sent, or copied, at once: 4 if 0.
	Parallel int
	// Memory bounds the bytes of bodies that all Puts of this store hold at once,
	// since a request that fails is sent again: 256 MiB if 0. Puts wait for one
	// another. An object whose parts are larger than that is put one part at a time.
	Memory int64
	// Client sends the requests that there are most of (see [Stats]): "own", or "sdk" for
	// the AWS SDK, should ours not get on with a server. "" means the environment's
	// MYRMIDON_S3_CLIENT, and own without it.
	Client string
	// Stall is how long a connection may stand still before it is given up and the
	// request repeated: a minute if 0.
	Stall time.Duration

	Log *slog.Logger // nil means none
}

// Store is a bucket, or a folder in it, as an object.Store. See [New].
type Store struct {
	*bucket
	prefix string // "" or ends in "/"
	any    bool   // keys may be what only a bucket can hold
}

// bucket is what all stores of a bucket share.
type bucket struct {
	name     string
	hot      hot
	client   *sdk.Client // for all other requests
	guard    *guard      // of both clients
	keys     *awsconf.Keys
	budget   budget
	endpoint string // "" is S3 itself
	source   source
	partSize int64
	parallel int
	copyMost int64 // what one request copies
	copyPart int64
	pause    time.Duration // before the first resumption of a body
	bodies   *buffers
	counts   counts
	noWhole  atomic.Bool // the server keeps no checksum of a whole object in parts
	log      *slog.Logger
}

var (
	_ object.Store  = (*Store)(nil)
	_ object.Copier = (*Store)(nil)
)

// New returns the store of a bucket. It reads the environment and the configuration
// files and sends no request: [Store.Writable] does. Errors are permanent.
func New(ctx context.Context, cfg Config) (*Store, error) {
	return open(ctx, cfg, func(*sdk.Options) {})
}

// open is New with the tests' settings of the client.
func open(ctx context.Context, cfg Config, tune func(*sdk.Options)) (*Store, error) {
	if err := CheckBucket(cfg.Bucket); err != nil {
		return nil, err
	}
	if cfg.PartSize == 0 {
		cfg.PartSize = 16 << 20
	}
	if cfg.PartSize < minPart || cfg.PartSize > maxPart {
		return nil, myrmidon.Permanent(fmt.Errorf("s3: a part size of %d bytes: S3 takes %d to %d", cfg.PartSize, minPart, maxPart))
	}
	if cfg.Parallel <= 0 {
		cfg.Parallel = 4
	}
	if cfg.Memory <= 0 {
		cfg.Memory = 256 << 20
	}
	if cfg.Stall <= 0 {
		cfg.Stall = time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &bucket{
		name:     cfg.Bucket,
		partSize: cfg.PartSize,
		parallel: cfg.Parallel,
		copyMost: maxCopy,
		copyPart: 512 << 20,
		pause:    100 * time.Millisecond,
		bodies:   newBuffers(cfg.Memory),
		log:      cfg.Log,
	}
	if err := b.connect(ctx, cfg, tune); err != nil {
		return nil, err
	}
	return (&Store{bucket: b}).Sub(cfg.Prefix)
}

// Sub returns the store of a folder in this one. It shares connections, credentials,
// memory and Stats. The prefix may end in "/"; "" is the store itself.
func (s *Store) Sub(prefix string) (*Store, error) {
	prefix = strings.TrimSuffix(prefix, "/")
	if prefix == "" {
		return s, nil
	}
	if err := errors.Join(object.CheckKey(prefix), checkText(prefix)); err != nil {
		return nil, err
	}
	return &Store{bucket: s.bucket, prefix: s.prefix + prefix + "/", any: s.any}, nil
}

// AnyKey returns the same store, whose keys may also be those that no folder has, as List
// yields them: a//b, /a, the marker a/, and a/../b, if the server takes that as it is.
func (s *Store) AnyKey() *Store { return &Store{bucket: s.bucket, prefix: s.prefix, any: true} }

// String returns the address: s3://bucket/prefix.
func (s *Store) String() string {
	return strings.TrimSuffix("s3://"+s.name+"/"+s.prefix, "/")
}

// CheckBucket refuses what no bucket can be named, before it becomes part of a URL.
// Old buckets and other servers also have capital letters and "_". The error is
// permanent and does not repeat the name, which may be a key and its secret.
func CheckBucket(name string) error {
	ok := len(name) >= 3 && len(name) <= 255
	for _, c := range name {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_')
	}
	if ok && !strings.HasPrefix(name, ".") && !strings.Contains(name, "..") {
		return nil
	}
	return myrmidon.Permanent(myrmidon.WithHint(errors.New("s3: that is not the name of a bucket"),
		"an address is s3://bucket/prefix; a bucket's name has 3 to 63 letters, digits, dots and hyphens"))
}

// checkText refuses keys that S3 cannot hold, though a folder could.
func checkText(key string) error {
	if utf8.ValidString(key) {
		return nil
	}
	return object.BadKey(fmt.Errorf("s3: %q cannot be a key: it is not UTF-8", key))
}

// full returns the bucket's key of a key of this store.
func (s *Store) full(key string) (string, error) {
	if s.any {
		return s.anyFull(key)
	}
	if err := object.CheckKey(key); err != nil {
		return "", err
	}
	if err := checkText(key); err != nil {
		return "", err
	}
	if n := len(s.prefix) + len(key); n > object.MaxKey {
		return "", object.BadKey(fmt.Errorf("s3: key %.40q… is %d bytes long in %s; %d are allowed", key, n, s, object.MaxKey))
	}
	return s.prefix + key, nil
}

// Writable says whether Put could write: it begins a multipart upload and aborts it.
// Unlike an object put on trial this leaves no version in a versioned bucket, nothing
// that an object lock would keep, and tells nobody who listens to the bucket's events.
func (s *Store) Writable(ctx context.Context) error {
	key := s.prefix + ".myrmidon-writable"
	out, err := s.client.CreateMultipartUpload(ctx, &sdk.CreateMultipartUploadInput{Bucket: &s.name, Key: &key})
	if err != nil {
		return s.failed(ctx, "write to "+s.String(), "s3:PutObject", err)
	}
	if err := s.abort(ctx, key, aws.ToString(out.UploadId)); err != nil {
		return s.failed(ctx, "write to "+s.String(), "s3:AbortMultipartUpload", err)
	}
	return nil
}

// Head describes an object. See [object.Store].
func (s *Store) Head(ctx context.Context, key string) (object.Info, error) {
	full, err := s.full(key)
	if err != nil {
		return object.Info{}, err
	}
	info, err := s.head(ctx, full)
	if err != nil {
		return object.Info{}, s.fail(ctx, "head", key, "s3:GetObject", err)
	}
	info.Key = key
	return info, nil
}

// head describes an object of the bucket. It asks again by a GET of one byte where the
// answer is 400 or 403: that of a HEAD has no body, so nobody could say why (an expired
// session, a wrong key).
func (s *Store) head(ctx context.Context, full string) (object.Info, error) {
	info, err := s.hot.head(ctx, full)
	if st := status(err); st != http.StatusBadRequest && st != http.StatusForbidden {
		return info, err
	}
	got, why := s.hot.get(ctx, full, "bytes=0-0", "")
	if why == nil {
		_ = got.body.Close() // of one byte that nobody asked for
		return object.Info{}, err
	}
	return object.Info{}, tooLong(why)
}

// tooLong turns the word of a server that keeps objects as files for a key too long
// to exist there.
func tooLong(err error) error {
	if code(err) == "KeyTooLongError" {
		return fmt.Errorf("%w (%s)", fs.ErrNotExist, brief(err))
	}
	return err
}
