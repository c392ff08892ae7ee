// Package s3stub is an S3 server inside the process, for tests and benchmarks that need
// what a real server cannot be made to do: ten million objects in no memory, latencies
// as S3's, and failures at a chosen request. Real clients speak to it over HTTP.
//
// A bucket keeps objects in memory, in byte order of their keys. A synthetic bucket
// ([Server.AddSynthetic]) makes its keys when they are asked for and stores nothing. A
// mirror ([Server.AddMirror]) is a bucket, empty at first, that keeps of each copy of a
// synthetic object one bit; [Server.Arrivals] tells what arrived, and what arrived twice.
//
// Requests are those of the S3 API reference, path-style: ListBuckets, CreateBucket,
// HeadBucket, DeleteBucket, GetBucketLocation, ListObjects, ListObjectsV2, HeadObject,
// GetObject, PutObject, CopyObject, DeleteObject, DeleteObjects, the tagging of objects,
// and all of multipart uploads. Header signatures (version 4, with chunk signatures and
// signed trailers), payload hashes, Content-MD5 and checksums are verified.
//
// [Server.Inject] makes requests fail. [Server.Counts] counts them.
//
// What it does not do as S3 does: versions, access control (an ACL is recorded, and every
// key pair may do everything), presigned addresses, and checksums that no client asked
// for (S3 adds a CRC64NVME to each object). Requests that it does not know are answered
// with 501 NotImplemented. A client that has gone does not stop what it asked for.
//
// The package is for tests and benchmarks.
package s3stub
