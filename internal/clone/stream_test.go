package clone

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/internal/checksum"
	"myrmidon/internal/testkit/s3stub"
	"myrmidon/object"
	"myrmidon/object/s3"
)

// services are two servers of S3 that one pair of keys opens, with a bucket each: what goes
// from "src" to "dst" has to stream.
type services struct {
	from, to *s3stub.Server
	stores   map[string]object.Store
}

func newServices(t *testing.T) *services {
	t.Helper()
	s := &services{stores: make(map[string]object.Store)}
	for name, srv := range map[string]**s3stub.Server{"src": &s.from, "dst": &s.to} {
		*srv = s3stub.New(t, s3stub.Config{Secret: "secret"})
		(*srv).Setenv(t)
		if err := (*srv).AddBucket(name); err != nil {
			t.Fatal(err)
		}
		store, err := s3.New(t.Context(), s3.Config{Bucket: name, Endpoint: (*srv).URL(), PartSize: 5 << 20})
		if err != nil {
			t.Fatal(err)
		}
		s.stores[name] = store.AnyKey()
	}
	return s
}

var attributes = s3stub.Attributes{
	ContentType: "text/x-a", CacheControl: "max-age=7", ContentEncoding: "gzip", ContentDisposition: "inline",
	ContentLanguage: "da", Expires: "Sat, 21 Nov 2026 10:00:00 GMT",
	Metadata: map[string]string{"camera": "1  2"}, Tags: map[string]string{"team": "a b", "é": ""},
}

func (s *services) put(t *testing.T, key string, a s3stub.Attributes, data []byte) {
	t.Helper()
	if err := s.from.PutObject("src", s3stub.Object{Key: key, Attributes: a}, data); err != nil {
		t.Fatal(err)
	}
}

func TestAStreamCarriesAllThatIsKept(t *testing.T) {
	for _, client := range []string{"own", "sdk"} {
		t.Run(client, func(t *testing.T) {
			t.Setenv("MYRMIDON_S3_CLIENT", client)
			s := newServices(t)
			bodies := map[string][]byte{"a//b": []byte("data"), "empty/": nil, "large": bytes.Repeat([]byte("0123456789abcdef"), 700_000)}
			for key, data := range bodies {
				s.put(t, key, attributes, data)
			}
			s.put(t, "plain", s3stub.Attributes{}, []byte("plain"))
			d := newDrive(t, Spec{Source: "src", Destination: "dst"}, s.stores)
			if err := d.run(t.Context()); err != nil || len(d.failed) > 0 {
				t.Fatal(err, d.failed)
			}
			for key, data := range bodies {
				got, _ := s.to.Object("dst", key)
				copied, _ := s.to.Data("dst", key)
				if diff := cmp.Diff(attributes, got.Attributes); diff != "" || !bytes.Equal(copied, data) {
					t.Errorf("%s: %d bytes, want %d; %s", key, len(copied), len(data), diff)
				}
				want := checksum.Of(checksum.CRC32C, data)
				if e := d.items["copy "+key]; e.How != "stream" || e.Destination != want || got.Checksum != want {
					t.Errorf("%s: evidence %+v, the object has %s, want %s", key, e, got.Checksum, want)
				}
			}
			// A GET each and tags of three; nothing is asked of the destination but to store.
			if c := s.from.Counts(); c[s3stub.Get].Requests != 4 || c[s3stub.GetTags].Requests != 3 || c[s3stub.Head].Requests != 0 {
				t.Errorf("requests of the source: %+v", c)
			}
			if c := s.to.Counts(); c[s3stub.Put].Requests != 3 || c[s3stub.Head].Requests != 0 || c[s3stub.PutTags].Requests != 0 {
				t.Errorf("requests of the destination: %+v", c)
			}
		})
	}
}

func TestWhatAStreamIsToldToSet(t *testing.T) {
	s := newServices(t)
	s.put(t, "k", attributes, []byte("data"))
	for name, tt := range map[string]struct {
		opts object.ImportOptions
		want s3stub.Attributes
	}{
		"other metadata, the source's tags": {
			object.ImportOptions{Replace: true, Attrs: object.Attrs{CacheControl: "no-cache"}, Metadata: map[string]string{"a": "b"}},
			s3stub.Attributes{ContentType: "application/octet-stream", CacheControl: "no-cache", Metadata: map[string]string{"a": "b"}, Tags: attributes.Tags},
		},
		"other tags, the source's metadata": {
			object.ImportOptions{Tags: map[string]string{"only": "this"}},
			func() s3stub.Attributes { a := attributes; a.Tags = map[string]string{"only": "this"}; return a }(),
		},
		"no tags, and all that is placement": {
			object.ImportOptions{Replace: true, Attrs: object.Attrs{ContentType: "x/y"}, Tags: map[string]string{}, StorageClass: "GLACIER_IR", Encryption: "aws:kms", KMSKey: "k", ACL: "private"},
			s3stub.Attributes{ContentType: "x/y", StorageClass: "GLACIER_IR", Encryption: "aws:kms", KMSKey: "k", ACL: "private"},
		},
	} {
		d := newDrive(t, Spec{Source: "src", Destination: "dst", Compare: CompareNone, Copy: tt.opts}, s.stores)
		if err := d.run(t.Context()); err != nil || len(d.failed) > 0 {
			t.Fatal(name, err, d.failed)
		}
		got, _ := s.to.Object("dst", "k")
		if diff := cmp.Diff(tt.want, got.Attributes); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// folder is a store of files.
func folder(t *testing.T) (root string, d *object.Dir) {
	t.Helper()
	root = t.TempDir()
	d, err := object.NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	return root, d
}

func TestWhatAFolderCannotHoldIsRefused(t *testing.T) {
	root, dst := folder(t)
	src := object.NewMem()
	put(t, src, nil, "a")
	for name, opts := range map[string]object.ImportOptions{
		"tags": {Tags: map[string]string{"a": "b"}}, "a class": {StorageClass: "GLACIER"}, "encryption": {Encryption: "AES256"}, "an ACL": {ACL: "private"},
		"metadata": {Replace: true, Metadata: map[string]string{"a": "b"}}, "a header": {Replace: true, Attrs: object.Attrs{CacheControl: "no-cache"}},
	} {
		d := newDrive(t, Spec{Source: "src", Destination: "dst", Copy: opts}, map[string]object.Store{"src": src, "dst": dst})
		if err := d.run(t.Context()); !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" || !strings.Contains(err.Error(), root) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(contents(t, dst)); n != 0 {
		t.Errorf("%d objects were copied", n)
	}
}

func TestFilesGetTheTimeOfTheSource(t *testing.T) {
	s := newServices(t)
	root, dst := folder(t)
	s.stores["dst"] = dst
	s.put(t, "a", attributes, []byte("data"))
	s.put(t, "old", attributes, []byte("data"))
	when := time.Date(2020, 2, 29, 12, 0, 0, 0, time.UTC)
	if err := s.from.PutObject("src", s3stub.Object{Key: "old", Modified: when}, []byte("data")); err != nil {
		t.Fatal(err)
	}
	for _, how := range []Compare{CompareExact, CompareTime} {
		for round, want := range []int64{2, 0} {
			d := newDrive(t, Spec{Source: "src", Destination: "dst", Compare: how}, s.stores)
			if err := d.run(t.Context()); err != nil || len(d.failed) > 0 {
				t.Fatal(err, d.failed)
			}
			if e := d.items["copy a"]; want > 0 && e.Destination != checksum.Of(checksum.CRC32C, []byte("data")) {
				t.Errorf("%s: evidence %+v", how, e)
			}
			if sum := Summary(d.notes); sum.Copy != want {
				t.Errorf("%s, round %d: %d are copied, want %d", how, round, sum.Copy, want)
			}
		}
		if stat, err := os.Stat(filepath.Join(root, "old")); err != nil || !stat.ModTime().Equal(when) {
			t.Errorf("the file is of %v, %v; want %v", stat.ModTime(), err, when)
		}
		// A newer file of one size is another one for exact, and as good for time.
		if err := os.WriteFile(filepath.Join(root, "old"), []byte("DATA"), 0o600); err != nil {
			t.Fatal(err)
		}
		d := newDrive(t, Spec{Source: "src", Destination: "dst", Compare: how}, s.stores)
		if err := d.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := d.keys("copy"); (how == CompareExact) != slices.Equal(got, []string{"old"}) {
			t.Errorf("%s: %q are copied anew", how, got)
		}
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
	}
	// No folder was asked for tags.
	if n := s.from.Counts()[s3stub.GetTags].Requests; n != 0 {
		t.Errorf("%d requests for tags that a folder cannot hold", n)
	}
}

func TestTimesThatAreAlike(t *testing.T) {
	src := time.Date(2026, 11, 21, 10, 0, 0, 700_000_000, time.UTC)
	for name, tt := range map[string]struct {
		dst         time.Time
		time, exact bool
	}{
		"the same":                             {src, true, true},
		"the same, cut off":                    {src.Truncate(time.Second), true, true},
		"later":                                {src.Add(time.Nanosecond), true, false},
		"a little earlier, of as fine a clock": {src.Add(-time.Millisecond), false, false},
		"a second earlier":                     {src.Add(-time.Second), false, false},
	} {
		a, b := object.Info{Modified: src}, object.Info{Modified: tt.dst}
		if CompareTime.alike(a, b) != tt.time || CompareExact.alike(a, b) != tt.exact {
			t.Errorf("%s: time %t, exact %t", name, CompareTime.alike(a, b), CompareExact.alike(a, b))
		}
	}
}

// What goes wrong while bytes stream leaves what was there, whole, and no upload or file.
func TestStreamsThatBreak(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789abcdef"), 500_000)
	other := bytes.Repeat([]byte("fedcba9876543210"), 500_000)
	for name, tt := range map[string]struct {
		fault func(s *services, t *testing.T) func(s3stub.Request) *s3stub.Fault
		good  bool
		says  string
		slow  bool
	}{
		"a cut connection is resumed": {good: true, fault: func(*services, *testing.T) func(s3stub.Request) *s3stub.Fault {
			return s3stub.First(2, s3stub.Fault{Cut: 3 << 20}, s3stub.Get)
		}},
		"replaced when it has broken off": {says: "changed", fault: func(s *services, t *testing.T) func(s3stub.Request) *s3stub.Fault {
			var n atomic.Int64
			return func(r s3stub.Request) *s3stub.Fault {
				switch {
				case r.Verb != s3stub.Get:
					return nil
				case n.Add(1) == 1:
					return &s3stub.Fault{Cut: 3 << 20}
				}
				s.put(t, "k", s3stub.Attributes{}, other)
				return nil
			}
		}},
		"every connection is cut": {says: "broke off", slow: true, fault: func(*services, *testing.T) func(s3stub.Request) *s3stub.Fault {
			return s3stub.First(1000, s3stub.Fault{Cut: 1000}, s3stub.Get)
		}},
	} {
		for _, into := range []string{"bucket", "folder"} {
			if tt.slow && into == "bucket" {
				continue // it is the reader's doing
			}
			s := newServices(t)
			s.put(t, "k", s3stub.Attributes{}, large)
			if into == "folder" {
				_, s.stores["dst"] = folder(t)
			}
			put(t, s.stores["dst"], func(string) string { return "old" }, "k")
			s.from.Inject(tt.fault(s, t))
			d := newDrive(t, Spec{Source: "src", Destination: "dst"}, s.stores)
			if err := d.run(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.from.Inject(nil)
			want := map[string]string{"k": "old"}
			if tt.good {
				want["k"] = string(large)
			}
			got := read1(t, s.stores["dst"], "k")
			if got != want["k"] || s.to.Uploads("dst") != 0 {
				t.Errorf("%s, into a %s: %d bytes are there, want %d; %d uploads are left", name, into, len(got), len(want["k"]), s.to.Uploads("dst"))
			}
			if f := d.failed["k"]; (f == nil) != tt.good || f != nil && !strings.Contains(f.Message, tt.says) {
				t.Errorf("%s, into a %s: failed %+v", name, into, f)
			}
			for info, err := range s.stores["dst"].List(context.Background(), "", "") {
				if err != nil || info.Key != "k" {
					t.Errorf("%s, into a %s: there is %q, %v", name, into, info.Key, err)
				}
			}
		}
	}
}

// read1 returns an object's bytes.
func read1(t *testing.T, s object.Store, key string) string {
	t.Helper()
	r, _, err := s.Get(context.Background(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A source whose bytes are not those that it was given is found out, wherever they go.
func TestASourceThatHasRotted(t *testing.T) {
	src := rotten{}
	for name, dst := range map[string]object.Store{"a folder": nil, "memory": object.NewMem(), "a bucket": newServices(t).stores["dst"]} {
		if dst == nil {
			_, dst = folder(t)
		}
		var moved atomic.Int64
		_, _, err := stream(t.Context(), src, dst, object.Info{Key: "k", Size: 4}, object.ImportOptions{}, &moved)
		if err == nil || !strings.Contains(err.Error(), "checksum") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := dst.Head(t.Context(), "k"); err == nil {
			t.Errorf("%s: it is stored", name)
		}
	}
}

// rotten is a store whose object has other bytes than its checksum says.
type rotten struct{ object.Store }

func (rotten) Open(context.Context, object.Info, bool) (*object.Opened, error) {
	return &object.Opened{Body: nopCloser{strings.NewReader("dada")}, Info: object.Info{Key: "k", Size: 4}, Checksum: checksum.Of(checksum.CRC64NVME, []byte("data"))}, nil
}

type nopCloser struct{ *strings.Reader }

func (nopCloser) Close() error { return nil }

func TestVerifyAsksForChecksums(t *testing.T) {
	s := newServices(t)
	src, dst := s.stores["src"], s.stores["dst"]
	data := "the same bytes"
	for key, sums := range map[string][2]string{
		"both":   {checksum.CRC64NVME, checksum.CRC64NVME},
		"other":  {checksum.CRC32, checksum.CRC64NVME},
		"source": {checksum.CRC32C, ""},
		"none":   {"", ""},
	} {
		for i, store := range []object.Store{src, dst} {
			srv, bucket := s.from, "src"
			if i == 1 {
				srv, bucket = s.to, "dst"
			}
			if sums[i] == "" {
				if err := srv.PutObject(bucket, s3stub.Object{Key: key, Attributes: s3stub.Attributes{Encryption: []string{"", "aws:kms"}[i]}}, []byte(data)); err != nil {
					t.Fatal(err)
				}
				continue
			}
			// Encryption by KMS makes ETags that are no MD5.
			opts := object.PutOptions{Checksum: checksum.Of(sums[i], []byte(data)), Encryption: []string{"", "aws:kms"}[i]}
			if _, err := store.(object.Keeper).PutWith(t.Context(), key, strings.NewReader(data), int64(len(data)), opts); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.from.Reset()
	s.to.Reset()
	d := newDrive(t, Spec{Source: "src", Destination: "dst", Verify: VerifyChecksum}, s.stores)
	if err := d.phase(t.Context(), phaseVerify); err != nil || len(d.failed) > 0 {
		t.Fatal(err, d.failed)
	}
	want := map[string]string{"verify both": "checksum", "verify other": "read", "verify source": "read", "verify none": "read"}
	got := make(map[string]string)
	for key, e := range d.items {
		got[key] = e.How
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	from, to := s.from.Counts(), s.to.Counts()
	if from[s3stub.Head].Requests != 4 || from[s3stub.Get].Requests != 1 || to[s3stub.Head].Requests != 4 || to[s3stub.Get].Requests != 3 {
		t.Errorf("requests: %+v of the source, %+v of the destination", from, to)
	}
	// What differs is found by checksums alone.
	if _, err := dst.(object.Keeper).PutWith(t.Context(), "both", strings.NewReader("other of 14 b."), 14, object.PutOptions{Checksum: checksum.Of(checksum.CRC64NVME, []byte("other of 14 b."))}); err != nil {
		t.Fatal(err)
	}
	d = newDrive(t, Spec{Source: "src", Destination: "dst", Verify: VerifyChecksum}, s.stores)
	if err := d.phase(t.Context(), phaseVerify); err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(d.failed)); !slices.Equal(got, []string{"both"}) {
		t.Errorf("failed: %q", got)
	}
}
