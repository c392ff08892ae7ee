package s3stub

import "sync/atomic"

// Verb is a kind of request.
type Verb uint8

// The kinds of requests. Other is what the server does not know.
const (
	Other  Verb = iota
	Bucket      // ListBuckets, CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation
	List        // ListObjects, ListObjectsV2
	Head
	Get
	Put
	Copy
	Delete
	DeleteMany
	CreateUpload
	UploadPart
	CopyPart
	Complete
	Abort
	ListParts
	ListUploads
	GetTags
	PutTags
	DeleteTags

	verbs
)

var verbNames = [verbs]string{
	"other", "bucket", "LIST", "HEAD", "GET", "PUT", "COPY", "DELETE", "DeleteObjects", "CreateMultipartUpload", "UploadPart",
	"UploadPartCopy", "CompleteMultipartUpload", "AbortMultipartUpload", "ListParts", "ListMultipartUploads",
	"GetObjectTagging", "PutObjectTagging", "DeleteObjectTagging",
}

// String returns the verb's name in reports.
func (v Verb) String() string {
	if v >= verbs {
		return "unknown"
	}
	return verbNames[v]
}

// Count is what happened with one verb.
type Count struct {
	Requests int64 // begun
	Failed   int64 // answered with 400 or more, faults included
	Injected int64 // those that a fault was chosen for
	In       int64 // bytes of request bodies, decoded
	Out      int64 // bytes of answers' bodies
	Peak     int64 // the most that were under way at a time
}

// Counts are the counts of all verbs that were asked for.
type Counts map[Verb]Count

// Requests returns the number of all requests.
func (c Counts) Requests() int64 {
	n := int64(0)
	for _, v := range c {
		n += v.Requests
	}
	return n
}

// tally is a Count while it is counted.
type tally struct {
	requests, failed, injected, in, out, now, peak atomic.Int64
}

func (t *tally) enter() {
	now := t.now.Add(1)
	for {
		peak := t.peak.Load()
		if now <= peak || t.peak.CompareAndSwap(peak, now) {
			return
		}
	}
}

func (t *tally) leave() { t.now.Add(-1) }

func (t *tally) count() Count {
	return Count{
		Requests: t.requests.Load(), Failed: t.failed.Load(), Injected: t.injected.Load(),
		In: t.in.Load(), Out: t.out.Load(), Peak: t.peak.Load(),
	}
}

// reset sets all to zero but what is under way.
func (t *tally) reset() {
	for _, n := range []*atomic.Int64{&t.requests, &t.failed, &t.injected, &t.in, &t.out} {
		n.Store(0)
	}
	t.peak.Store(t.now.Load())
}
