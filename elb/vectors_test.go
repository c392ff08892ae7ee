package elb_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"myrmidon/elb"
)

// vectors are real lines with what other programs make of them. They stand beside the
// repository, not in it: this package's own lines are in lines_test.go.
const vectors = "../../shared/vectors/elb"

var vectorFormats = map[string]elb.Format{
	"alb.jsonl":            elb.ALB,
	"alb_connection.jsonl": elb.ALBConnection,
	"clb.jsonl":            elb.Classic,
	"cloudfront.jsonl":     elb.CloudFront,
	"nlb.jsonl":            elb.NLB,
	"s3access.jsonl":       elb.S3Access,
}

// peerNames are the names of ours for theirs. host is the address and port in one.
var peerNames = map[string]string{
	"client_host": "client", "target_host": "target", "timestamp": "time", "traceability_id": "conn_trace_id",
	"clientip": "client_ip", "clientport": "client_port", "response": "elb_status_code", "bytes": "sent_bytes",
	"verb": "request_method", "request": "request_url", "httpversion": "request_protocol",
}

func TestRealLinesParseToWhatOthersMakeOfThem(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(vectors, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skipf("no vectors at %s", vectors)
	}
	for _, file := range files {
		want, ok := vectorFormats[filepath.Base(file)]
		if !ok {
			t.Errorf("%s: no format is known for this file", file)
			continue
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for scanner, n := bufio.NewScanner(f), 1; scanner.Scan(); n++ {
			t.Run(filepath.Base(file)+":"+strconv.Itoa(n), func(t *testing.T) { checkVector(t, want, scanner.Bytes()) })
		}
	}
}

func checkVector(t *testing.T, want elb.Format, data []byte) {
	var vector struct {
		Line     string         `json:"line"`
		Expected map[string]any `json:"peer_expected"`
		Note     string         `json:"note"`
	}
	if err := json.Unmarshal(data, &vector); err != nil {
		t.Fatal(err)
	}
	line := []byte(vector.Line)
	if got := elb.Detect("", line); got != want {
		t.Fatalf("Detect = %v, want %v", got, want)
	}
	var r elb.Record
	if err := r.Parse(want, line); err != nil {
		t.Fatal(err)
	}
	got := decode(t, elb.Encoder{}.AppendJSON(nil, &r))
	if bad := got["malformed"]; bad != nil {
		t.Errorf("malformed: %v", bad)
	}
	if fields := r.Fields(); (r.Columns() > fields[len(fields)-1].Column+1) != (got["extra"] != nil) {
		t.Errorf("%d columns, %d fields, extra: %v", r.Columns(), len(fields), got["extra"])
	}
	for name, want := range vector.Expected {
		ours := name
		if n, ok := peerNames[name]; ok {
			ours = n
		}
		value := got[ours]
		switch name {
		case "client_host", "target_host":
			if value = nil; got[ours+"_ip"] != nil {
				value = got[ours+"_ip"].(string) + ":" + text(got[ours+"_port"])
			}
		case "httpversion":
			value = strings.TrimPrefix(text(value), "HTTP/")
		}
		if text(value) != text(want) {
			t.Errorf("%s = %v, want %v as %s", ours, value, want, name)
		}
	}
	if strings.Contains(vector.Note, "must be absent") && (got["backend_ip"] != nil || got["backend_port"] != nil || got["backend_status_code"] != nil) {
		t.Errorf("backend is there: %v", got)
	}
	if strings.Contains(vector.Note, "method/version null") && (got["request_method"] != nil || got["request_protocol"] != nil || got["request"] == nil) {
		t.Errorf("the malformed request is %v", got)
	}
	if strings.Contains(vector.Note, "+transformed_host") {
		r.Parse(want, bytes.ReplaceAll(line, []byte(` "-" "-" "-"`), []byte(` "host" "/uri" "Success"`)))
		got := decode(t, elb.Encoder{}.AppendJSON(nil, &r))
		if got["transformed_host"] != "host" || got["transformed_uri"] != "/uri" || got["request_transform_status"] != "Success" {
			t.Errorf("the transformed request is %v", got)
		}
	}
}

// text is a JSON value as others may write it: 200 and "200" are one, 0.0 and 0 too.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case []any:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = text(item)
		}
		return strings.Join(items, " ")
	}
	return "?"
}

// decode decodes an object, and fails on one that is not valid or has a key twice.
func decode(t testing.TB, data []byte) map[string]any {
	t.Helper()
	if !json.Valid(data) || !utf8.Valid(data) { // json.Valid does not look at UTF-8
		t.Fatalf("not JSON: %q", data)
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	if keys := topKeys(t, data); len(keys) != len(out) {
		slices.Sort(keys)
		t.Fatalf("a key is there twice: %v", keys)
	}
	return out
}

// topKeys are the keys of an object, repeated ones too.
func topKeys(t testing.TB, data []byte) []string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	var keys []string
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key.(string))
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}
