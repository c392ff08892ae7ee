package s3_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon/object"
	"myrmidon/object/s3"
)

const declaration = `<?xml version="1.0" encoding="UTF-8"?>`

// pagesOfServers are listings as servers write them, and what may go wrong with them. fast says
// that the scanner reads it, and not encoding/xml.
var pagesOfServers = []struct {
	name, xml string
	fast      bool
}{
	{"of S3", string(quickListing()[:1200]) + `</ListBucketResult>`, false}, // cut within an element
	{"of S3, whole", declaration + "\n" + `<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>a%2Fb</Prefix><NextContinuationToken>1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=</NextContinuationToken><KeyCount>2</KeyCount><MaxKeys>2</MaxKeys><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><Contents><Key>a%2Fb+c%25</Key><LastModified>2026-11-21T10:00:00.000Z</LastModified><ETag>&quot;e1&quot;</ETag><ChecksumAlgorithm>CRC32</ChecksumAlgorithm><Size>5</Size><Owner><ID>x</ID><DisplayName/></Owner><StorageClass>STANDARD</StorageClass></Contents><Contents><Key>a%2Fc</Key><ETag>"e2-3"</ETag><Size>0</Size><RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress></RestoreStatus></Contents></ListBucketResult>`, true},
	{"with common prefixes and an empty prefix", `<ListBucketResult><Prefix/><Delimiter>/</Delimiter><KeyCount>1</KeyCount><CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes></ListBucketResult>`, true},
	{"indented", declaration + "\n<ListBucketResult>\n  <KeyCount>1</KeyCount>\n\t<Contents>\n    <Key>a b</Key>\n  </Contents>\n</ListBucketResult>\n", true},
	{"with characters that are escaped", `<ListBucketResult><Contents><Key>&lt;&gt;&amp;&apos;&quot;&#65;&#x42;&#13;&#10;é日😀</Key></Contents></ListBucketResult>`, true},
	{"with white space in a key", "<ListBucketResult><Contents><Key> a\tb\n </Key></Contents></ListBucketResult>", true},
	{"with the same element twice", `<ListBucketResult><KeyCount>7</KeyCount><KeyCount>1</KeyCount><Contents><Key>a</Key><Key>b</Key></Contents></ListBucketResult>`, true},
	{"without anything", `<ListBucketResult/>`, false},
	{"with line breaks of Windows", "<ListBucketResult><Contents><Key>a\r\nb</Key></Contents></ListBucketResult>", false},
	{"with a comment", `<ListBucketResult><!-- c --><Contents><Key>a<!-- <Key>x</Key> -->b</Key></Contents></ListBucketResult>`, false},
	{"with CDATA", `<ListBucketResult><Contents><Key><![CDATA[a&b]]></Key></Contents></ListBucketResult>`, false},
	{"with a namespace of its own", `<s:ListBucketResult xmlns:s="x"><s:Contents><s:Key>a</s:Key></s:Contents></s:ListBucketResult>`, false},
	{"with attributes", `<ListBucketResult a="1"><Contents b='2'><Key c="3">a</Key></Contents></ListBucketResult>`, false},
	{"with an element in a key", `<ListBucketResult><Contents><Key>a<Key>b</Key>c</Key></Contents></ListBucketResult>`, false},
	{"with text between elements", `<ListBucketResult>x<Contents>y<Key>a</Key>z</Contents></ListBucketResult>`, false},
	{"with the end of a CDATA", `<ListBucketResult><Contents><Key>a]]>b</Key></Contents></ListBucketResult>`, false},
	{"with an unknown entity", `<ListBucketResult><Contents><Key>&nbsp;</Key></Contents></ListBucketResult>`, false},
	{"with a character of no XML", "<ListBucketResult><Contents><Key>\x01</Key></Contents></ListBucketResult>", false},
	{"with such a character in an entity", `<ListBucketResult><Contents><Key>&#1;&#xFFFE;&#xD800;</Key></Contents></ListBucketResult>`, false},
	{"with bytes that are not UTF-8", "<ListBucketResult><Contents><Key>\xff</Key></Contents></ListBucketResult>", false},
	{"in another encoding", `<?xml version="1.0" encoding="ISO-8859-1"?><ListBucketResult><Contents><Key>` + "\xe9" + `</Key></Contents></ListBucketResult>`, false},
	{"with elements that end in the wrong order", `<ListBucketResult><Contents><Key>a</Contents></Key></ListBucketResult>`, false},
	{"that ends early", `<ListBucketResult><Contents><Key>a</Key></Contents>`, false},
	{"of nothing", ``, false},
	{"of something else", `<html><body>Welcome to the hotel's network</body></html>`, false},
	{"nested deeply", `<ListBucketResult>` + strings.Repeat("<A>", 40) + strings.Repeat("</A>", 40) + `</ListBucketResult>`, false},
}

func TestPagesAreReadAsXMLIs(t *testing.T) {
	for _, c := range pagesOfServers {
		t.Run(c.name, func(t *testing.T) {
			if ok := sameAsXML(t, []byte(c.xml)); ok != c.fast {
				t.Errorf("the scanner reads it: %v, want %v", ok, c.fast)
			}
		})
	}
	if !sameAsXML(t, quickListing()) {
		t.Error("the scanner does not read a page of 1,000 objects")
	}
}

// sameAsXML fails the test where the scanner reads a page, and encoding/xml not, or otherwise.
func sameAsXML(t *testing.T, data []byte) bool {
	t.Helper()
	got, ok := s3.ScanListing(data)
	if !ok {
		return false
	}
	want, err := s3.DecodeListing(data)
	if err != nil {
		t.Errorf("the scanner reads what is no XML: %v\n%.300q", err, data)
	}
	if diff := cmp.Diff(want, got); err == nil && diff != "" {
		t.Errorf("%.300q (-encoding/xml +scanner):\n%s", data, diff)
	}
	return true
}

func FuzzPagesAreReadAsXMLIs(f *testing.F) {
	for _, c := range pagesOfServers {
		f.Add([]byte(c.xml))
	}
	f.Fuzz(func(t *testing.T, data []byte) { sameAsXML(t, data) })
}

func TestAPageIsMadeSenseOf(t *testing.T) {
	at := time.Date(2026, 11, 21, 10, 0, 0, 5e6, time.UTC)
	for _, c := range []struct {
		name, xml string
		want      []object.Info
		problem   string
	}{
		{"all of an object", `<EncodingType>url</EncodingType><Contents><Key>a%2Fb+c%25%C3%A9</Key><LastModified>2026-11-21T10:00:00.005Z</LastModified><ETag>&quot;e-2&quot;</ETag><Size>123456789012</Size></Contents>`, []object.Info{{Key: "a/b c%é", Size: 123456789012, Modified: at, ETag: "e-2"}}, ""},
		{"an encoding that is said at the end", `<Contents><Key>a%2Fb</Key></Contents><EncodingType>url</EncodingType>`, []object.Info{{Key: "a/b"}}, ""},
		{"an object without anything", `<Contents></Contents>`, []object.Info{{}}, ""},
		{"a size that is none", `<Contents><Size>-1</Size></Contents>`, nil, "-1"},
		{"a size that is too much", `<Contents><Size>99999999999999999999</Size></Contents>`, nil, "9999"},
		{"a time that is none", `<Contents><LastModified>yesterday</LastModified></Contents>`, nil, "yesterday"},
		{"an encoding that breaks off", `<EncodingType>url</EncodingType><Contents><Key>a%2</Key></Contents>`, nil, "decoded"},
		{"a truth that is none", `<IsTruncated>perhaps</IsTruncated>`, nil, "perhaps"},
		{"a count that is none", `<KeyCount>many</KeyCount>`, nil, "many"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := s3.ParseListing([]byte("<ListBucketResult>" + c.xml + "</ListBucketResult>"))
			if c.problem == "" && (err != nil || cmp.Diff(c.want, got) != "") {
				t.Errorf("%v\n%s", err, cmp.Diff(c.want, got))
			}
			if c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)) {
				t.Errorf("%v, want an error about %q", err, c.problem)
			}
		})
	}
}

func BenchmarkParseListing(b *testing.B) {
	data := quickListing()
	b.Run("scanner", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			if page, err := s3.ParseListing(data); err != nil || len(page) != 1000 {
				b.Fatal(len(page), err)
			}
		}
	})
	b.Run("encoding-xml", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		b.ReportAllocs()
		for b.Loop() {
			if l, err := s3.DecodeListing(data); err != nil || len(l.Entries) != 1000 {
				b.Fatal(fmt.Sprint(len(l.Entries)), err)
			}
		}
	})
}
