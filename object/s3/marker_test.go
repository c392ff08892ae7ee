package s3_test

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"myrmidon/internal/testkit/s3server"
	"myrmidon/object"
)

// versitygw refuses to copy a marker, and takes it from a Put.
func TestMarkersAreCopiedWithWhatBelongsToThem(t *testing.T) {
	both(t, testMarkersAreCopiedWithWhatBelongsToThem)
}

func testMarkersAreCopiedWithWhatBelongsToThem(t *testing.T) {
	srv := s3server.Start(t)
	srv.Setenv(t)
	srv.Bucket(t, "from")
	srv.Bucket(t, "into")
	from, into := anyKeys(t, "from"), anyKeys(t, "into")
	for key, tags := range map[string]map[string]string{"tagged/": {"team": "a b+c"}, "bare/": {}} {
		put(t, from, key, "")
		if len(tags) > 0 {
			if err := from.SetTags(t.Context(), key, tags); err != nil {
				t.Fatal(err)
			}
		}
		info, err := from.Head(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := into.Import(t.Context(), from, info, key, object.ImportOptions{}); err != nil {
			t.Fatal(err)
		}
		got, err := into.Head(t.Context(), key)
		if err != nil || got.Size != 0 || got.ContentType != info.ContentType {
			t.Errorf("%s: %+v, %v; want %+v", key, got, err, info)
		}
		if len(tags) > 0 {
			if have, err := into.Tags(t.Context(), key); err != nil || !maps.Equal(have, tags) {
				t.Errorf("%s has the tags %v, %v", key, have, err)
			}
		}
	}
	var keys []string
	for info, err := range into.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	if diff := cmp.Diff([]string{"bare/", "tagged/"}, keys); diff != "" {
		t.Error(diff)
	}
}
