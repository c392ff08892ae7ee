package wire

import "testing"

func TestLocationsAreAddressesTakenApart(t *testing.T) {
	for address, want := range map[string]Location{
		"s3://media":            {Bucket: "media"},
		"s3://media/":           {Bucket: "media"},
		"s3://media/a/b/":       {Bucket: "media", Folder: "a/b"},
		"s3://media/a?region=x": {Bucket: "media", Folder: "a", Region: "x"},
		"s3://media/a?b":        {Bucket: "media", Folder: "a?b"},
		"s3://media?profile=p&endpoint=http://host:9000&region=r&role=arn:aws:iam::1:role/a%2Bb": {
			Bucket: "media", Profile: "p", Endpoint: "http://host:9000", Region: "r", Role: "arn:aws:iam::1:role/a+b",
		},
	} {
		got, err := Locate(address)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", address, got, err, want)
		}
		if again, err := Locate(got.String()); err != nil || again != want {
			t.Errorf("%s: written as %s it is %+v, %v", address, got, again, err)
		}
	}
	for _, address := range []string{"./folder", "file:///srv", "s3://", "s3://media?secret=x"} {
		if got, err := Locate(address); err == nil {
			t.Errorf("%s is taken for %+v", address, got)
		}
	}
}
