package s3stub

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"
)

// sdkClient is the SDK's client for a server, at another endpoint if one is given.
func sdkClient(s *Server, endpoint string, options ...func(*s3.Options)) *s3.Client {
	if endpoint == "" {
		endpoint = s.URL()
	}
	return s3.New(s3.Options{
		Region: s.cfg.Region, BaseEndpoint: &endpoint, UsePathStyle: true, RetryMaxAttempts: 1,
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported, ResponseChecksumValidation: aws.ResponseChecksumValidationWhenSupported,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			c := s.Credentials()
			return aws.Credentials{AccessKeyID: c.AccessKey, SecretAccessKey: c.Secret, SessionToken: c.Token}, nil
		}),
	}, options...)
}

// codeOf is the error code that the SDK made of an answer.
func codeOf(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

func hexMD5(data []byte) string {
	sum := md5.Sum(data)
	return hex.EncodeToString(sum[:])
}

// hardKeys are keys that show who escapes what how often.
var hardKeys = []string{
	"a", "a b", "a+b", "a%20b", "a%2Bb", "a/../b", "a//b", "/lead", "./dot", "trail/", "ä/ö", "日本語", "😀", "q?x=1&y#z", "<&>'\"",
	"tab\there", "line\nfeed", "cr\rhere", "\x01\x7f", "*~!'()", "$:;@=,",
}

func TestTheSDKPutsGetsListsAndDeletes(t *testing.T) {
	s := withBucket(t, Config{})
	k, ctx := sdkClient(s, ""), t.Context()
	in := &s3.PutObjectInput{
		Bucket: aws.String("b"), ContentType: aws.String("video/mp4"), CacheControl: aws.String("max-age=5"), ContentEncoding: aws.String("gzip"),
		Metadata: map[string]string{"color": "blue"}, Tagging: aws.String("a=1&b=x%20y"), StorageClass: types.StorageClassStandardIa,
		ACL: types.ObjectCannedACLBucketOwnerFullControl, ContentDisposition: aws.String("inline"), ContentLanguage: aws.String("de"),
	}
	for _, key := range hardKeys {
		in.Key, in.Body = &key, strings.NewReader("data of "+key)
		put := must(k.PutObject(ctx, in))
		if want := `"` + hexMD5([]byte("data of "+key)) + `"`; *put.ETag != want {
			t.Errorf("%q: etag %s, want %s", key, *put.ETag, want)
		}
		get := must(k.GetObject(ctx, &s3.GetObjectInput{Bucket: in.Bucket, Key: &key, ChecksumMode: types.ChecksumModeEnabled}))
		data, err := io.ReadAll(get.Body) // and verifies the CRC that the SDK sent
		if err != nil || string(data) != "data of "+key {
			t.Errorf("%q: %q %v", key, data, err)
		}
		if get.ChecksumCRC32 == nil {
			t.Errorf("%q: the answer has no checksum", key)
		}
	}
	want := Attributes{
		ContentType: "video/mp4", CacheControl: "max-age=5", ContentEncoding: "gzip", ContentDisposition: "inline", ContentLanguage: "de",
		Metadata: map[string]string{"color": "blue"}, Tags: map[string]string{"a": "1", "b": "x y"}, StorageClass: "STANDARD_IA",
		ACL: "bucket-owner-full-control",
	}
	o, _ := s.Object("b", "a b")
	if d := cmp.Diff(want, o.Attributes); d != "" {
		t.Errorf("attributes (-want +got):\n%s", d)
	}
	head := must(k.HeadObject(ctx, &s3.HeadObjectInput{Bucket: in.Bucket, Key: aws.String("a+b")}))
	if *head.ContentType != "video/mp4" || head.Metadata["color"] != "blue" || *head.ContentLength != 11 || head.StorageClass != "STANDARD_IA" {
		t.Errorf("HEAD: %+v", head)
	}
	list := must(k.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: in.Bucket, EncodingType: types.EncodingTypeUrl}))
	var got []string
	for _, o := range list.Contents {
		key, fine := unescape(*o.Key, true)
		if !fine {
			t.Errorf("a listing holds %q", *o.Key)
		}
		got = append(got, key)
	}
	if d := cmp.Diff(s.Keys("b"), got); d != "" || len(got) != len(hardKeys) {
		t.Errorf("listed (-want +got):\n%s", d)
	}
	gone := must(k.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: in.Bucket, Delete: &types.Delete{Objects: []types.ObjectIdentifier{
		{Key: aws.String("a b")}, {Key: aws.String("q?x=1&y#z")}, {Key: aws.String("not there")},
	}}}))
	if len(gone.Deleted) != 3 || len(gone.Errors) != 0 || s.Len("b") != len(hardKeys)-2 {
		t.Errorf("deleted %d, left %d", len(gone.Deleted), s.Len("b"))
	}
	must(k.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: in.Bucket, Key: aws.String("a")}))
	if _, err := k.GetObject(ctx, &s3.GetObjectInput{Bucket: in.Bucket, Key: aws.String("a")}); codeOf(err) != "NoSuchKey" {
		t.Errorf("a deleted object: %v", err)
	}
	if _, err := k.HeadObject(ctx, &s3.HeadObjectInput{Bucket: in.Bucket, Key: aws.String("a")}); codeOf(err) != "NotFound" {
		t.Errorf("HEAD of a deleted object: %v", err)
	}
}

// must makes two results one error's worth: it panics, which ends the test with a trace.
func must[T any](out T, err error) T {
	if err != nil {
		panic(err)
	}
	return out
}

func TestTheSDKCopies(t *testing.T) {
	s := withBucket(t, Config{})
	k, ctx := sdkClient(s, ""), t.Context()
	b := aws.String("b")
	for i, key := range hardKeys {
		attrs := Attributes{ContentType: "x/y", Metadata: map[string]string{"n": "v"}, Tags: map[string]string{"t": "1"}, StorageClass: "GLACIER_IR"}
		if err := s.PutObject("b", Object{Key: key, Attributes: attrs}, []byte(key)); err != nil {
			t.Fatal(err)
		}
		to := aws.String("copy/" + key)
		source := string(appendURI(nil, "b/"+key, false))
		if i%2 == 1 {
			source = "/" + source
		}
		out := must(k.CopyObject(ctx, &s3.CopyObjectInput{Bucket: b, Key: to, CopySource: &source}))
		got, _ := s.Object("b", *to)
		attrs.StorageClass = "" // it is not copied
		if d := cmp.Diff(attrs, got.Attributes); d != "" || *out.CopyObjectResult.ETag != `"`+got.ETag+`"` {
			t.Errorf("%q: %s (-want +got):\n%s", key, *out.CopyObjectResult.ETag, d)
		}
		if data, _ := s.Data("b", *to); string(data) != key {
			t.Errorf("%q: copied %q", key, data)
		}
	}
	must(k.CopyObject(ctx, &s3.CopyObjectInput{
		Bucket: b, Key: aws.String("replaced"), CopySource: aws.String("b/a"), MetadataDirective: types.MetadataDirectiveReplace,
		TaggingDirective: types.TaggingDirectiveReplace, Tagging: aws.String("new=2"), ContentType: aws.String("new/type"),
		StorageClass: types.StorageClassStandardIa, ServerSideEncryption: types.ServerSideEncryptionAes256,
	}))
	got, _ := s.Object("b", "replaced")
	want := Attributes{ContentType: "new/type", Tags: map[string]string{"new": "2"}, StorageClass: "STANDARD_IA", Encryption: "AES256"}
	if d := cmp.Diff(want, got.Attributes); d != "" {
		t.Errorf("replaced (-want +got):\n%s", d)
	}
}

// multipart uploads sizes as parts of key with the SDK.
func multipart(t testing.TB, k *s3.Client, in *s3.CreateMultipartUploadInput, parts ...[]byte) *s3.CompleteMultipartUploadOutput {
	t.Helper()
	ctx := t.Context()
	up := must(k.CreateMultipartUpload(ctx, in))
	done := &types.CompletedMultipartUpload{}
	for i, data := range parts {
		n := aws.Int32(int32(i + 1))
		p := must(k.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: in.Bucket, Key: in.Key, UploadId: up.UploadId, PartNumber: n, Body: bytes.NewReader(data), ChecksumAlgorithm: in.ChecksumAlgorithm,
		}))
		done.Parts = append(done.Parts, types.CompletedPart{
			ETag: p.ETag, PartNumber: n,
			ChecksumCRC32: p.ChecksumCRC32, ChecksumCRC32C: p.ChecksumCRC32C, ChecksumCRC64NVME: p.ChecksumCRC64NVME,
		})
	}
	return must(k.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: in.Bucket, Key: in.Key, UploadId: up.UploadId, MultipartUpload: done}))
}

func TestTheSDKUploadsInParts(t *testing.T) {
	s := withBucket(t, Config{MinPart: 4, MaxCopy: 10})
	k, ctx := sdkClient(s, ""), t.Context()
	b, key := aws.String("b"), aws.String("big")
	out := multipart(t, k, &s3.CreateMultipartUploadInput{Bucket: b, Key: key, ContentType: aws.String("x/y"), ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c},
		[]byte("12345"), []byte("67890"), []byte("x"))
	sums := [][md5.Size]byte{md5.Sum([]byte("12345")), md5.Sum([]byte("67890")), md5.Sum([]byte("x"))}
	if want := `"` + multipartETag(sums) + `"`; *out.ETag != want || !strings.HasSuffix(want, `-3"`) {
		t.Errorf("etag %s, want %s", *out.ETag, want)
	}
	o, _ := s.Object("b", "big")
	if d := cmp.Diff([]int64{5, 5, 1}, o.Parts); d != "" || !strings.HasPrefix(o.Checksum, "CRC32C:") || !strings.HasSuffix(o.Checksum, "-3") || o.ContentType != "x/y" {
		t.Errorf("%+v\n%s", o, d)
	}
	part := must(k.HeadObject(ctx, &s3.HeadObjectInput{Bucket: b, Key: key, PartNumber: aws.Int32(2)}))
	if *part.ContentLength != 5 || *part.PartsCount != 3 || *part.ContentRange != "bytes 5-9/11" {
		t.Errorf("part 2: %d bytes of %d parts, %s", *part.ContentLength, *part.PartsCount, *part.ContentRange)
	}
	if _, err := k.CopyObject(ctx, &s3.CopyObjectInput{Bucket: b, Key: aws.String("c"), CopySource: aws.String("b/big")}); codeOf(err) != "InvalidRequest" {
		t.Errorf("a copy of what is too large: %v", err)
	}
	// The same parts make the same ETag.
	up := must(k.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: b, Key: aws.String("c")}))
	var done types.CompletedMultipartUpload
	for i, r := range []string{"bytes=0-4", "bytes=5-9", "bytes=10-10"} {
		p := must(k.UploadPartCopy(ctx, &s3.UploadPartCopyInput{
			Bucket: b, Key: aws.String("c"), UploadId: up.UploadId, PartNumber: aws.Int32(int32(i + 1)),
			CopySource: aws.String("b/big"), CopySourceRange: &r, CopySourceIfMatch: out.ETag,
		}))
		done.Parts = append(done.Parts, types.CompletedPart{ETag: p.CopyPartResult.ETag, PartNumber: aws.Int32(int32(i + 1))})
	}
	parts := must(k.ListParts(ctx, &s3.ListPartsInput{Bucket: b, Key: aws.String("c"), UploadId: up.UploadId, MaxParts: aws.Int32(2)}))
	if len(parts.Parts) != 2 || !*parts.IsTruncated || *parts.NextPartNumberMarker != "2" || *parts.Parts[1].Size != 5 {
		t.Errorf("parts: %+v", parts)
	}
	uploads := must(k.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: b}))
	if len(uploads.Uploads) != 1 || *uploads.Uploads[0].Key != "c" || *uploads.Uploads[0].UploadId != *up.UploadId {
		t.Errorf("uploads: %+v", uploads)
	}
	copied := must(k.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: b, Key: aws.String("c"), UploadId: up.UploadId, MultipartUpload: &done}))
	if *copied.ETag != *out.ETag {
		t.Errorf("the copy's etag is %s, the source's %s", *copied.ETag, *out.ETag)
	}
	if data, _ := s.Data("b", "c"); string(data) != "1234567890x" {
		t.Errorf("copied %q", data)
	}
	left := must(k.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: b, Key: key}))
	if s.Uploads("b") != 1 {
		t.Errorf("%d uploads, want 1", s.Uploads("b"))
	}
	abort := &s3.AbortMultipartUploadInput{Bucket: b, Key: key, UploadId: left.UploadId}
	must(k.AbortMultipartUpload(ctx, abort))
	if _, err := k.AbortMultipartUpload(ctx, abort); codeOf(err) != "NoSuchUpload" || s.Uploads("b") != 0 {
		t.Errorf("a second abort: %v", err)
	}
}

func TestTheSDKTagsAndMakesBuckets(t *testing.T) {
	s := withBucket(t, Config{})
	k, ctx := sdkClient(s, ""), t.Context()
	must(k.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("new")}))
	if _, err := k.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String("new")}); codeOf(err) != "BucketAlreadyOwnedByYou" {
		t.Errorf("a second one: %v", err)
	}
	if all := must(k.ListBuckets(ctx, &s3.ListBucketsInput{})); len(all.Buckets) != 2 || *all.Buckets[1].Name != "new" {
		t.Errorf("buckets: %+v", all.Buckets)
	}
	b, key := aws.String("new"), aws.String("k")
	if head := must(k.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: b})); *head.BucketRegion != "us-east-1" {
		t.Errorf("region %q", *head.BucketRegion)
	}
	if at := must(k.GetBucketLocation(ctx, &s3.GetBucketLocationInput{Bucket: b})); at.LocationConstraint != "" {
		t.Errorf("location %q", at.LocationConstraint)
	}
	must(k.PutObject(ctx, &s3.PutObjectInput{Bucket: b, Key: key, Body: strings.NewReader("x")}))
	before, _ := s.Object("new", "k")
	tags := []types.Tag{{Key: aws.String("a"), Value: aws.String("1 & <2>")}, {Key: aws.String("ä"), Value: aws.String("")}}
	must(k.PutObjectTagging(ctx, &s3.PutObjectTaggingInput{Bucket: b, Key: key, Tagging: &types.Tagging{TagSet: tags}}))
	got := must(k.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: b, Key: key}))
	if len(got.TagSet) != 2 || *got.TagSet[0].Value != "1 & <2>" || *got.TagSet[1].Key != "ä" {
		t.Errorf("tags: %+v", got.TagSet)
	}
	if head := must(k.HeadObject(ctx, &s3.HeadObjectInput{Bucket: b, Key: key})); *head.TagCount != 2 {
		t.Errorf("HEAD counts %d tags", *head.TagCount)
	}
	must(k.DeleteObjectTagging(ctx, &s3.DeleteObjectTaggingInput{Bucket: b, Key: key}))
	after, _ := s.Object("new", "k")
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("after tagging and untagging (-want +got):\n%s", d)
	}
	if _, err := k.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: b}); codeOf(err) != "BucketNotEmpty" {
		t.Errorf("a full bucket: %v", err)
	}
	must(k.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: b, Key: key}))
	must(k.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: b}))
	if _, err := k.ListObjects(ctx, &s3.ListObjectsInput{Bucket: b}); codeOf(err) != "NoSuchBucket" {
		t.Errorf("a deleted bucket: %v", err)
	}
}

// Over TLS the SDK sends what it cannot read twice with a checksum behind it.
func TestTheSDKSendsTrailers(t *testing.T) {
	s := withBucket(t, Config{})
	secure := httptest.NewTLSServer(s)
	defer secure.Close()
	seen := ""
	s.Inject(func(r Request) *Fault { seen = r.Header.Get("X-Amz-Content-Sha256"); return nil })
	for _, algorithm := range []types.ChecksumAlgorithm{"CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"} {
		k := sdkClient(s, secure.URL, func(o *s3.Options) { o.HTTPClient = secure.Client() })
		data := strings.Repeat("0123456789", 20_000)
		must(k.PutObject(t.Context(), &s3.PutObjectInput{
			Bucket: aws.String("b"), Key: aws.String("k"), Body: io.MultiReader(strings.NewReader(data)),
			ContentLength: aws.Int64(int64(len(data))), ChecksumAlgorithm: algorithm,
		}))
		o, _ := s.Object("b", "k")
		if got, _ := s.Data("b", "k"); string(got) != data || o.ContentEncoding != "" || !strings.HasPrefix(o.Checksum, string(algorithm)+":") {
			t.Errorf("%s: stored %d bytes, encoding %q, checksum %q", algorithm, len(got), o.ContentEncoding, o.Checksum)
		}
		if seen != streamUnsigned {
			t.Fatalf("%s: the SDK sent %q, so this tests nothing", algorithm, seen)
		}
		if _, err := k.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String("none")}); err == nil {
			t.Error("HEAD of no bucket succeeds")
		}
	}
}

// copyParts copies an object in parts of the given size.
func copyParts(t testing.TB, k *s3.Client, source, bucket, key string, size, part int64) {
	t.Helper()
	ctx := t.Context()
	up := must(k.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: &key}))
	var done types.CompletedMultipartUpload
	off := int64(0)
	for i, n := range partSizes(size, part) {
		r := fmt.Sprintf("bytes=%d-%d", off, off+n-1)
		off += n
		p := must(k.UploadPartCopy(ctx, &s3.UploadPartCopyInput{
			Bucket: &bucket, Key: &key, UploadId: up.UploadId, PartNumber: aws.Int32(int32(i + 1)), CopySource: &source, CopySourceRange: &r,
		}))
		done.Parts = append(done.Parts, types.CompletedPart{ETag: p.CopyPartResult.ETag, PartNumber: aws.Int32(int32(i + 1))})
	}
	must(k.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: &bucket, Key: &key, UploadId: up.UploadId, MultipartUpload: &done}))
}
