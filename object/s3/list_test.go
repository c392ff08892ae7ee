package s3_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"myrmidon"
	"myrmidon/object/s3"
)

// page is an answer to ListObjectsV2.
func page(more string, keys ...string) string {
	var b strings.Builder
	b.WriteString("<ListBucketResult>" + more)
	for _, k := range keys {
		fmt.Fprintf(&b, "<Contents><Key>%s</Key><Size>1</Size><ETag>&quot;e&quot;</ETag></Contents>", k)
	}
	b.WriteString("</ListBucketResult>")
	return b.String()
}

func TestListingsOfOtherServers(t *testing.T) { both(t, testListingsOfOtherServers) }

func testListingsOfOtherServers(t *testing.T) {
	const encoded = "<EncodingType>url</EncodingType>"
	for _, c := range []struct {
		name, prefix, after string
		pages               []string
		want                []string
		problem             string
	}{
		{"keys are decoded if the answer says so", "", "", []string{page(encoded, "folder/a+b%2Bc%0A", "folder/%C3%A9%01")}, []string{"a b+c\n", "é\x01"}, ""},
		{"keys are not decoded if it does not", "", "", []string{page("", "folder/a+b%2B")}, []string{"a+b%2B"}, ""},
		{"pages are followed, also empty ones", "", "", []string{
			page("<IsTruncated>true</IsTruncated><NextContinuationToken>t1</NextContinuationToken>", "folder/a"),
			page("<IsTruncated>true</IsTruncated><NextContinuationToken>t2</NextContinuationToken>"),
			page("<IsTruncated>false</IsTruncated>", "folder/b"),
		}, []string{"a", "b"}, ""},
		{"the folder's own marker is no object of it, others are", "", "", []string{page("", "folder/", "folder/a/", "folder/a//b")}, []string{"a/", "a//b"}, ""},
		{"what comes early is left out", "", "b", []string{page("", "folder/a", "folder/b", "folder/c")}, []string{"c"}, ""},
		{"a prefix that ends within a character", "\xc3", "", []string{page("", "folder/a", "folder/é", "folder/ü", "folder/日")}, []string{"é", "ü"}, ""},
		{"a listing without order", "", "", []string{page("", "folder/b", "folder/a")}, []string{"b"}, "order"},
		{"a listing that repeats itself", "", "", []string{page("", "folder/b", "folder/b")}, []string{"b"}, "order"},
		{"keys of another prefix", "", "", []string{page("", "etc/passwd")}, nil, "etc/passwd"},
		{"a page without the next", "", "", []string{page("<IsTruncated>true</IsTruncated>", "folder/a")}, []string{"a"}, "goes on"},
		{"a page that goes on with itself", "", "", []string{
			page("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"),
			page("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"),
		}, nil, "goes on"},
		{"a key that is encoded wrongly", "", "", []string{page(encoded, "folder/%zz")}, nil, "decoded"},
		{"an answer that is no XML", "", "", []string{"<ListBucketResult><Contents>"}, nil, "s3: list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t, func(w http.ResponseWriter, _ *http.Request, op string, n int) bool {
				if op != "ListObjectsV2" {
					return false
				}
				_, _ = w.Write([]byte(c.pages[min(n, len(c.pages))-1]))
				return true
			})
			s := w.store(t, s3.Config{Prefix: "folder"})
			var got []string
			var problem error
			for info, err := range s.List(t.Context(), c.prefix, c.after) {
				if problem = err; err == nil {
					got = append(got, info.Key)
				}
			}
			if !slices.Equal(got, c.want) || (problem == nil) != (c.problem == "") || problem != nil && !strings.Contains(problem.Error(), c.problem) {
				t.Errorf("%q, %v; want %q and an error about %q", got, problem, c.want, c.problem)
			}
			if c.problem == "order" && !myrmidon.IsPermanent(problem) {
				t.Errorf("%v is not permanent", problem)
			}
			for i, r := range w.requests("ListObjectsV2") {
				q := r.URL.Query()
				if q.Get("encoding-type") != "url" || q.Get("prefix") != "folder/" || i == 1 && q.Get("continuation-token") == "" {
					t.Errorf("request %d: %s", i, r.URL.RawQuery)
				}
			}
		})
	}
}
