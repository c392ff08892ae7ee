package s3_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/internal/testkit/s3stub"
	"myrmidon/object"
	"myrmidon/object/s3"
)

// A role's keys, and no others, sign what is sent to its bucket; the service of roles is a fake
// on the wire.
func TestABucketIsReachedByARole(t *testing.T) {
	stub := s3stub.New(t, s3stub.Config{})
	stub.Setenv(t)
	if err := stub.AddBucket("media"); err != nil {
		t.Fatal(err)
	}
	const arn = "arn:aws:iam::123456789012:role/copier"
	role := s3stub.Credentials{AccessKey: "ROLEKEY", Secret: "role-secret", Token: "role-session"}
	var asked []string
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		form, err := url.ParseQuery(string(body))
		if err != nil || form.Get("Action") != "AssumeRole" || !strings.Contains(r.Header.Get("Authorization"), stub.Credentials().AccessKey) {
			t.Errorf("asked for %q, %v", body, err)
		}
		asked = append(asked, form.Get("RoleArn"))
		w.Header().Set("Content-Type", "text/xml")
		if form.Get("RoleArn") != arn {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>`)
			return
		}
		fmt.Fprintf(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
			role.AccessKey, role.Secret, role.Token, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	defer sts.Close()
	t.Setenv("AWS_ENDPOINT_URL_STS", sts.URL)
	store := func(arn string) *s3.Store {
		t.Helper()
		s, err := s3.New(t.Context(), s3.Config{Bucket: "media", Role: arn})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	plain, by := store(""), store(arn)
	if err := by.Put(t.Context(), "k", strings.NewReader("x"), 1, object.Attrs{}); err == nil {
		t.Error("the stub does not know the role's keys yet, and takes them")
	}
	stub.AddCredentials(role)
	if err := by.Put(t.Context(), "k", strings.NewReader("x"), 1, object.Attrs{}); err != nil {
		t.Error(err)
	}
	if plain.CanImport(by) || by.CanImport(plain) || !by.CanImport(store(arn)) {
		t.Error("what one role may read, the other is not known to")
	}
	_, err := store("arn:aws:iam::123456789012:role/other").Head(t.Context(), "k")
	if err == nil || !strings.Contains(err.Error(), "AssumeRole") || myrmidon.Hint(err) == "" {
		t.Errorf("a role that may not be assumed: %v (%s)", err, myrmidon.Hint(err))
	}
	if len(asked) < 2 || asked[0] != arn {
		t.Errorf("asked for %q", asked)
	}
}
