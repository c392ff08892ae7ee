package s3

import (
	"context"
	"io"
	"time"

	"myrmidon/object"
)

// Names of the clients, for Config.Client and the environment's MYRMIDON_S3_CLIENT.
const (
	ownClient = "own"
	sdkClient = "sdk"
	clientEnv = "MYRMIDON_S3_CLIENT"
)

// hot are the requests that a busy store sends by the thousand each second. There are two
// of it, which do and fail alike: own writes HTTP itself, and viaSDK leaves that to the AWS
// SDK, at several times the CPU and eight times the garbage (see BenchmarkClients). All other
// requests go by the SDK.
//
// Keys are the bucket's. An error is one of the SDK or a *refusal: see status, code, header.
type hot interface {
	// list appends the objects of one page to page.
	list(ctx context.Context, q listQuery, page []object.Info) (listing, error)
	// head describes an object.
	head(ctx context.Context, key string) (object.Info, error)
	// get opens an object, or the range "bytes=…" of it, if its ETag is ifMatch or that is "".
	get(ctx context.Context, key, byteRange, ifMatch string) (*opened, error)
	// checksum describes an object, and says the checksum of its bytes: "CRC32:…".
	checksum(ctx context.Context, key string) (object.Info, string, error)
	// put stores an object, whose checksum is sum ("CRC32C:…"), or is computed here if that
	// is "".
	put(ctx context.Context, key string, data []byte, sum string, opts *object.PutOptions) (piece, error)
	// putPart stores part n of an upload. sum is as in put.
	putPart(ctx context.Context, key, upload string, n int, data []byte, sum string) (piece, error)
	// copy makes key a copy.
	copy(ctx context.Context, key string, c copying) (piece, error)
	// copyPart makes part n of an upload a copy.
	copyPart(ctx context.Context, key, upload string, n int, c copying) (piece, error)
}

// listQuery asks for a page of a listing.
type listQuery struct {
	prefix, after, token string
	most                 int // 0 is the server's choice, which is 1,000
}

// listing is a page of one.
type listing struct {
	page  []object.Info
	next  string // token of the next page
	more  bool   // there is one
	count int    // how many objects the page says it has; -1 if it does not
}

// opened is an answer to a GET.
type opened struct {
	body         io.ReadCloser
	length       int64 // -1 if it is not said
	contentRange string
	etag         string // as it was sent, with its quotes
	info         object.Info
	checksum     string // of the whole object: "CRC32:…"; "" if the answer has none
	validate     bool   // nobody else compares the bytes with it
	// describe returns what else the answer says of the object, and how many tags it has.
	describe func() (object.Description, int)
}

// piece is what a server says of an object or part that it has stored.
type piece struct {
	etag     string // as it was sent, with its quotes
	checksum string // "CRC32:…"
	modified time.Time
}

// copying says what is copied, and how.
type copying struct {
	source    string // as sourceOf writes it
	ifMatch   string // with its quotes; "" is no condition
	byteRange string // of a part
	target    string // the copy's key in its store, which Attrs may follow
	opts      object.ImportOptions
}
