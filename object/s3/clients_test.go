package s3_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"myrmidon/object"
	"myrmidon/object/s3"
)

// quickServer is the environment that makes this test program a server which answers at once,
// so that a benchmark's CPU is the client's.
const quickServer = "MYRMIDON_S3_TEST_QUICK_SERVER"

// serveQuickly answers until its standard input ends.
func serveQuickly() {
	listing := quickListing()
	data := make([]byte, 64<<10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		h := w.Header()
		h["Etag"] = []string{`"0123456789abcdef0123456789abcdef"`}
		h["X-Amz-Request-Id"] = []string{"0123456789ABCDEF"}
		switch operation(r) {
		case "ListObjectsV2":
			h["Content-Type"] = []string{"application/xml"}
			_, _ = w.Write(listing)
		case "CopyObject":
			h["Content-Type"] = []string{"application/xml"}
			_, _ = io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?>`+"\n"+`<CopyObjectResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><LastModified>2026-11-21T10:00:00.000Z</LastModified><ETag>&quot;0123456789abcdef0123456789abcdef&quot;</ETag><ChecksumCRC64NVME>AAAAAAAAAAA=</ChecksumCRC64NVME><ChecksumType>FULL_OBJECT</ChecksumType></CopyObjectResult>`)
		case "GetObject":
			h["Content-Type"] = []string{"video/iso.segment"}
			h["Content-Length"] = []string{"65536"}
			h["Last-Modified"] = []string{"Sat, 21 Nov 2026 10:00:00 GMT"}
			_, _ = w.Write(data)
		case "HeadObject":
			h["Content-Length"] = []string{"65536"}
			h["Last-Modified"] = []string{"Sat, 21 Nov 2026 10:00:00 GMT"}
		}
	}))
	fmt.Println(s.URL)
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Close()
	os.Exit(0)
}

// quickListing is a page as S3 writes it.
func quickListing() []byte {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><Prefix></Prefix><KeyCount>1000</KeyCount><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>`)
	for i := range 1000 {
		fmt.Fprintf(&b, `<Contents><Key>class/2026-11-21/video+1080p/segment-%06d.m4s</Key><LastModified>2026-11-21T10:00:00.000Z</LastModified><ETag>&quot;0123456789abcdef0123456789%06x&quot;</ETag><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType><Size>%d</Size><StorageClass>STANDARD</StorageClass></Contents>`, i, i, i*1000)
	}
	b.WriteString(`</ListBucketResult>`)
	return b.Bytes()
}

// startQuickServer runs this program as a server until the benchmark's end.
func startQuickServer(b *testing.B) string {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), quickServer+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(url)
}

// BenchmarkClients compares what requests cost this process: cpu-us/op is its user and system
// time, the server being another process. "floor" is net/http alone, without a signature or
// checksum, with the same bodies.
func BenchmarkClients(b *testing.B) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1",
		"AWS_PROFILE": "", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
	} {
		b.Setenv(name, value)
	}
	url := startQuickServer(b)
	data := make([]byte, 64<<10)
	src := object.Info{Key: "class/2026-11-21/segment-00017.m4s", ETag: "0123456789abcdef0123456789abcdef", Size: 65536}
	for _, c := range []struct {
		name, method, query string
		do                  func(b *testing.B, s *s3.Store) error
	}{
		{"CopyObject", "PUT", "", func(b *testing.B, s *s3.Store) error {
			_, err := s.Import(b.Context(), s, src, "to/2026-11-21/segment-00017.m4s", object.ImportOptions{})
			return err
		}},
		{"PutObject-64K", "PUT", "", func(b *testing.B, s *s3.Store) error {
			return s.Put(b.Context(), "class/2026-11-21/segment-00017.m4s", bytes.NewReader(data), int64(len(data)), object.Attrs{})
		}},
		{"GetObject-64K", "GET", "", func(b *testing.B, s *s3.Store) error {
			r, _, err := s.Get(b.Context(), src.Key, 0, -1)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, r)
			_ = r.Close()
			return err
		}},
		{"HeadObject", "HEAD", "", func(b *testing.B, s *s3.Store) error {
			_, err := s.Head(b.Context(), src.Key)
			return err
		}},
		{"ListObjectsV2-1000", "GET", "?list-type=2", func(b *testing.B, s *s3.Store) error {
			page, _, err := s.Page(b.Context(), "", "", 0)
			if len(page) != 1000 {
				b.Fatalf("%d objects, %v", len(page), err)
			}
			return err
		}},
	} {
		for _, client := range []string{"own", "sdk"} {
			b.Run(c.name+"/"+client, func(b *testing.B) {
				s, err := s3.New(b.Context(), s3.Config{Bucket: "bucket", Endpoint: url, Client: client})
				if err != nil {
					b.Fatal(err)
				}
				measure(b, func() error { return c.do(b, s) })
			})
		}
		b.Run(c.name+"/floor", func(b *testing.B) {
			transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 512, ReadBufferSize: 32 << 10, WriteBufferSize: 32 << 10}
			defer transport.CloseIdleConnections()
			measure(b, func() error {
				var body io.Reader
				if strings.HasPrefix(c.name, "Put") {
					body = bytes.NewReader(data)
				}
				req, err := http.NewRequestWithContext(b.Context(), c.method, url+"/bucket/key"+c.query, body)
				if err != nil {
					return err
				}
				if c.name == "CopyObject" {
					req.Header["X-Amz-Copy-Source"] = []string{"bucket/key"}
				}
				resp, err := transport.RoundTrip(req)
				if err != nil {
					return err
				}
				_, err = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				return err
			})
		})
	}
}

// measure runs do in 32 goroutines, as many as work in a busy process, and reports the CPU
// that one takes.
func measure(b *testing.B, do func() error) {
	b.Helper()
	b.ReportAllocs()
	b.SetParallelism(32 / runtime.GOMAXPROCS(0))
	b.RunParallel(func(pb *testing.PB) { // connections and pools
		for pb.Next() {
			if err := do(); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ResetTimer()
	before := cpuTime(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := do(); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(cpuTime(b)-before)/1e3/float64(b.N), "cpu-us/op")
}
