package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/s3server"
)

// pair is two buckets of a real server, and the program.
type pair struct {
	t       *testing.T
	srv     *s3server.Server
	client  *s3.Client
	program string
	dir     string
}

func newPair(t *testing.T) *pair {
	t.Helper()
	program, err := exec.LookPath("myrmidon") // TestMain puts it there
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{t: t, srv: s3server.Start(t), program: program, dir: t.TempDir()}
	p.srv.Setenv(t)
	p.srv.Bucket(t, "from")
	p.srv.Bucket(t, "into")
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.client = s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle, o.DisableLogOutputChecksumValidationSkipped = true, true })
	return p
}

// stored is an object of the source.
type stored struct {
	key      string
	size     int // above 10 MiB it has three parts
	kind     string
	metadata map[string]string
	tags     map[string]string
}

// mixed are objects of all kinds that a file system can hold.
func mixed(n int, random *rand.Rand) (all []stored) {
	keys := []string{
		"with space", "plus+sign", "per%cent", "%2F", "é/composed", "e\u0301/decomposed", "日本語/файл", `a&b<c>"d'`, "a-b", "a/b", "a.b", "ab",
		strings.Repeat(strings.Repeat("k", 254)+"/", 4) + "1024", "?x=1&y#z", "back\\slash", "tilde~*()!",
	}
	for _, k := range keys {
		all = append(all, stored{key: k, size: 1 + random.IntN(3000)})
	}
	for _, k := range []string{"marker/", "deep/er/marker/"} {
		all = append(all, stored{key: k, kind: "application/x-directory"})
	}
	for i := range 2 {
		all = append(all, stored{key: fmt.Sprintf("large/%d.mp4", i), size: 10<<20 + 1 + random.IntN(4<<20), kind: "video/mp4"})
	}
	for i := len(all); i < n; i++ {
		size := []int{0, 1, random.IntN(200), random.IntN(200), random.IntN(5000), random.IntN(5000), random.IntN(100_000)}[i%7]
		all = append(all, stored{key: fmt.Sprintf("films/%03d/%04d.ts", random.IntN(150), i), size: size, kind: []string{"video/mp2t", "", "text/plain; charset=utf-8"}[i%3]})
	}
	for i := range all {
		if i%2 == 0 {
			all[i].metadata = map[string]string{"origin": fmt.Sprintf("camera %d", i), "x-take": "a+b %20"}
		}
		if i%3 == 0 {
			all[i].tags = map[string]string{"team": "a b+c", "n": fmt.Sprint(i)}
		}
	}
	return all
}

// put stores an object in the source.
func (p *pair) put(o stored, body []byte) error {
	ctx, bucket := p.t.Context(), aws.String("from")
	tags := make(url.Values)
	for k, v := range o.tags {
		tags.Set(k, v)
	}
	var tagging, kind *string
	if len(tags) > 0 {
		tagging = aws.String(tags.Encode())
	}
	if o.kind != "" {
		kind = &o.kind
	}
	if o.size <= 10<<20 {
		_, err := p.client.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: &o.key, Body: bytes.NewReader(body), ContentType: kind, Metadata: o.metadata, Tagging: tagging})
		return err
	}
	up, err := p.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: &o.key, ContentType: kind, Metadata: o.metadata, Tagging: tagging, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32})
	if err != nil {
		return err
	}
	var parts []types.CompletedPart
	for i := range 3 {
		part := body[i*5<<20:]
		if i < 2 {
			part = part[:5<<20]
		}
		out, err := p.client.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: &o.key, UploadId: up.UploadId, PartNumber: aws.Int32(int32(i + 1)), Body: bytes.NewReader(part)})
		if err != nil {
			return err
		}
		parts = append(parts, types.CompletedPart{ETag: out.ETag, PartNumber: aws.Int32(int32(i + 1)), ChecksumCRC32: out.ChecksumCRC32})
	}
	_, err = p.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: bucket, Key: &o.key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	return err
}

// fill puts all objects, with bytes of their own each.
func (p *pair) fill(all []stored, seed uint64) {
	p.t.Helper()
	each(p.t, all, func(i int, o stored) error {
		body := make([]byte, o.size)
		if _, err := rand.NewChaCha8([32]byte{byte(seed), byte(i), byte(i >> 8)}).Read(body); err != nil {
			return err
		}
		if err := p.put(o, body); err != nil {
			return fmt.Errorf("put %q: %w", o.key, err)
		}
		return nil
	})
}

// each does a thing with all, some at a time.
func each[T any](t *testing.T, all []T, do func(i int, v T) error) {
	t.Helper()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i, v := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := do(i, v); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// arrived counts the files of the destination.
func (p *pair) arrived() (n int) {
	// Files come and go meanwhile.
	_ = filepath.WalkDir(filepath.Join(p.srv.Dir(), "into"), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && d.IsDir() && strings.HasPrefix(d.Name(), ".sgwtmp") {
			return fs.SkipDir
		}
		if err == nil && !d.IsDir() {
			n++
		}
		return nil
	})
	return n
}

func (p *pair) command(args ...string) *exec.Cmd {
	c := exec.Command(p.program, args...)
	c.Dir, c.Env = p.dir, append(os.Environ(), "MYRMIDON_STATE="+filepath.Join(p.dir, "state"))
	return c
}

// aws runs Debian's client.
func (p *pair) aws(args ...string) ([]byte, error) {
	program := "/usr/bin/aws"
	if _, err := os.Stat(program); err != nil {
		if program, err = exec.LookPath("aws"); err != nil {
			return nil, fmt.Errorf("%w (make test installs awscli)", err)
		}
	}
	c := exec.CommandContext(p.t.Context(), program, args...)
	// Even an empty profile is one to it.
	c.Env = slices.DeleteFunc(append(os.Environ(), "AWS_PAGER=", "PYTHONUTF8=1", "LC_ALL=C.UTF-8"), func(e string) bool { return strings.HasPrefix(e, "AWS_PROFILE=") })
	c.Args = append(c.Args, "--endpoint-url", p.srv.Endpoint)
	var out, problems bytes.Buffer
	c.Stdout, c.Stderr = &out, &problems
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("aws %q: %w\n%s", args, err, problems.String())
	}
	return out.Bytes(), nil
}

// A clone between two buckets that is killed five times at random points and resumed ends
// with the same bytes, metadata, content types and tags, as another client sees them.
func TestACloneThatIsKilledFiveTimesIsTheSameToOthers(t *testing.T) {
	long.Test(t)
	const n = 2000
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	p := newPair(t)
	all := mixed(n, random)
	begun := time.Now()
	p.fill(all, seed)
	t.Logf("seed %d, %d objects are there after %.1f s", seed, n, time.Since(begun).Seconds())

	var points []int
	for range 5 {
		points = append(points, 1+random.IntN(n*9/10))
	}
	slices.Sort(points)
	args := []string{"clone", "s3://from", "s3://into", "-q"}
	for _, point := range points {
		c := p.command(args...)
		var said bytes.Buffer
		c.Stdout, c.Stderr = &said, &said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		there := p.arrived()
		for deadline := time.Now().Add(30 * time.Second); there < point; {
			select {
			case err := <-ended:
				t.Fatalf("ended with %v at %d of %d\n%s", err, p.arrived(), n, said.String())
			case <-time.After(time.Millisecond):
			}
			if now := p.arrived(); now != there {
				there, deadline = now, time.Now().Add(30*time.Second)
			} else if time.Now().After(deadline) {
				t.Fatalf("stands still at %d of %d", there, n)
			}
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; status(err) >= 0 {
			t.Fatalf("it had ended by itself: %v\n%s", err, said.String())
		}
		args = []string{"runs", "resume", "latest", "-q"}
	}
	t.Logf("killed at %d, last with %d there", points, p.arrived())
	if out, err := p.command(args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	p.sameBytes(all)
	p.sameAttributes(all)
	p.sameToAwscli(all, random)
	t.Logf("%.1f s in all", time.Since(begun).Seconds())
}

// sameBytes reads both buckets.
func (p *pair) sameBytes(all []stored) {
	p.t.Helper()
	get := func(bucket, key string) ([]byte, error) {
		out, err := p.client.GetObject(p.t.Context(), &s3.GetObjectInput{Bucket: &bucket, Key: &key})
		if err != nil {
			return nil, fmt.Errorf("get %q of %s: %w", key, bucket, err)
		}
		data, err := io.ReadAll(out.Body)
		return data, errors.Join(err, out.Body.Close())
	}
	each(p.t, all, func(_ int, o stored) error {
		a, err := get("from", o.key)
		b, err2 := get("into", o.key)
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		if len(a) != o.size || !bytes.Equal(a, b) {
			return fmt.Errorf("%q has %d bytes, of %d, and they differ: %t", o.key, len(b), o.size, !bytes.Equal(a, b))
		}
		return nil
	})
}

// sameAttributes compares what belongs to each object beside its bytes.
func (p *pair) sameAttributes(all []stored) {
	p.t.Helper()
	each(p.t, all, func(_ int, o stored) error {
		var kinds []string
		for _, bucket := range []string{"from", "into"} {
			head, err := p.client.HeadObject(p.t.Context(), &s3.HeadObjectInput{Bucket: &bucket, Key: &o.key})
			if err != nil {
				return fmt.Errorf("head %q of %s: %w", o.key, bucket, err)
			}
			tags, err := p.tags(p.t.Context(), bucket, o.key)
			if err != nil {
				return fmt.Errorf("tags of %q of %s: %w", o.key, bucket, err)
			}
			kinds = append(kinds, aws.ToString(head.ContentType))
			if !maps.Equal(head.Metadata, o.metadata) || !maps.Equal(tags, o.tags) {
				return fmt.Errorf("%q of %s has metadata %q and tags %q, want %q and %q", o.key, bucket, head.Metadata, tags, o.metadata, o.tags)
			}
		}
		if kinds[0] != kinds[1] || o.kind != "" && kinds[0] != o.kind {
			return fmt.Errorf("%q has content types %q, stored as %q", o.key, kinds, o.kind)
		}
		return nil
	})
}

// tags are an object's; a server may say that it has none by an error.
func (p *pair) tags(ctx context.Context, bucket, key string) (map[string]string, error) {
	out, err := p.client.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: &bucket, Key: &key})
	if err != nil {
		if strings.Contains(err.Error(), "NoSuchTagSet") {
			return nil, nil
		}
		return nil, err
	}
	tags := make(map[string]string)
	for _, t := range out.TagSet {
		tags[*t.Key] = *t.Value
	}
	return tags, nil
}

// sameToAwscli lets Debian's client look: at the lists of both, at what a sync would do,
// and at a few objects.
func (p *pair) sameToAwscli(all []stored, random *rand.Rand) {
	p.t.Helper()
	var sample []stored
	for _, i := range []int{random.IntN(len(all)) / 6 * 6, 12, slices.IndexFunc(all, func(o stored) bool { return o.size > 10<<20 })} {
		sample = append(sample, all[i])
	}
	calls := [][]string{{"s3", "sync", "s3://from", "s3://into", "--dryrun"}}
	for _, bucket := range []string{"from", "into"} {
		calls = append(calls, []string{"s3api", "list-objects-v2", "--bucket", bucket, "--output", "json", "--query", "Contents[].[Key,Size,ETag]"})
	}
	for _, o := range sample {
		for _, bucket := range []string{"from", "into"} {
			calls = append(calls,
				[]string{"s3api", "head-object", "--bucket", bucket, "--key", o.key, "--output", "json", "--query", "[ContentLength,ContentType,Metadata]"},
				[]string{"s3api", "get-object-tagging", "--bucket", bucket, "--key", o.key, "--output", "json", "--query", "sort_by(TagSet,&Key)"})
		}
	}
	answers := make([][]byte, len(calls))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 3)
	for i, args := range calls {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			out, err := p.aws(args...)
			if err != nil && !strings.Contains(err.Error(), "NoSuchTagSet") {
				p.t.Error(err)
			}
			answers[i] = out
		})
	}
	wg.Wait()
	if p.t.Failed() {
		return
	}
	if out := bytes.TrimSpace(answers[0]); len(out) > 0 {
		p.t.Errorf("aws s3 sync would do something:\n%.500s", out)
	}
	from, into := listedByAwscli(p.t, answers[1]), listedByAwscli(p.t, answers[2])
	if len(from) != len(all) {
		p.t.Errorf("awscli lists %d objects of the source, want %d", len(from), len(all))
	}
	for key, o := range from {
		// The copy of an object that came in parts, made by one request, has none.
		whole := !strings.Contains(o[1], "-")
		if got := into[key]; got[0] != o[0] || whole && got[1] != o[1] {
			p.t.Errorf("awscli sees %q as %q, and as %q in the source", key, got, o)
		}
	}
	if len(into) != len(from) {
		p.t.Errorf("awscli lists %d objects of the destination", len(into))
	}
	for i, o := range sample {
		a := answers[3+4*i:]
		if !sameJSON(a[0], a[2]) || !sameJSON(a[1], a[3]) {
			p.t.Errorf("awscli sees %q as\n%s%s, and as\n%s%s in the source", o.key, a[2], a[3], a[0], a[1])
		}
		if o.metadata != nil && !bytes.Contains(a[0], []byte(o.metadata["origin"])) || o.tags != nil && !bytes.Contains(a[1], []byte(o.tags["team"])) {
			p.t.Errorf("awscli sees not what %q was stored with: %s%s", o.key, a[0], a[1])
		}
	}
}

// sameJSON compares answers of awscli; the order of names in them means nothing.
func sameJSON(a, b []byte) bool {
	var x, y any
	if len(a) == 0 && len(b) == 0 { // as of an object without tags
		return true
	}
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// listedByAwscli are size and ETag by key.
func listedByAwscli(t *testing.T, data []byte) map[string][2]string {
	t.Helper()
	var rows [][3]any
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatalf("%v: %.300s", err, data)
	}
	out := make(map[string][2]string)
	for _, r := range rows {
		out[fmt.Sprint(r[0])] = [2]string{fmt.Sprint(r[1]), fmt.Sprint(r[2])}
	}
	return out
}
