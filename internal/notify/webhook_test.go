package notify

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"myrmidon"
)

const topic = "arn:aws:sns:eu-west-1:123456789012:logs"

// hook is a webhook beside a test.
type hook struct {
	t    *testing.T
	feed *Feed
	url  string
	end  func()
}

func newHook(t *testing.T, cfg WebhookConfig, do Do) *hook {
	t.Helper()
	cfg.Address = "webhook://127.0.0.1:0/s3"
	f, err := config(2).Webhook(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &hook{t, f, "http" + strings.TrimPrefix(f.String(), "webhook"), run(t, f, do)}
}

func (h *hook) send(method, body string, header ...string) *http.Response {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), method, h.url, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}

func (h *hook) post(body string, want int) *http.Response {
	h.t.Helper()
	resp := h.send(http.MethodPost, body)
	if resp.StatusCode != want {
		h.t.Errorf("%.200s: status %d, want %d", body, resp.StatusCode, want)
	}
	return resp
}

// sns wraps a body as SNS posts it.
func sns(t *testing.T, kind, arn, body string) string {
	t.Helper()
	out, err := json.Marshal(map[string]string{"Type": kind, "TopicArn": arn, "Message": body, "Token": "tok&en", "SubscribeURL": "http://127.0.0.1:1/never"})
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestAWebhookTakesEachShape(t *testing.T) {
	var came calls
	h := newHook(t, WebhookConfig{Dir: t.TempDir(), Topics: []string{topic}}, func(_ context.Context, o Object) error {
		came.add(o.Bucket + "/" + o.Key)
		return nil
	})
	// As MinIO sends it.
	h.post(`{"EventName":"s3:ObjectCreated:Put","Key":"logs/a+b%2Bc%2541","Records":[{"eventVersion":"2.0","eventSource":"minio:s3","eventName":"s3:ObjectCreated:Put","s3":{"bucket":{"name":"logs"},"object":{"key":"a+b%2Bc%2541","size":3,"eTag":"e","sequencer":"17"}}}]}`, 200)
	h.post(put("plain"), 200)
	h.post(sns(t, "Notification", topic, put("by-sns")), 200)
	h.post(`{"version":"0","detail-type":"Object Created","source":"aws.s3","detail":{"bucket":{"name":"logs"},"object":{"key":"bridge+%41","etag":"e","sequencer":"3"}}}`, 200)
	h.post(put("not-%ff-utf8"), 200)
	h.post(`{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"logs"}`, 200)
	h.post(sns(t, "Notification", topic, `{"Service":"Amazon S3","Event":"s3:TestEvent"}`), 200)
	h.post("garbage", 400)
	h.post("{}", 400)
	h.post(put("good", "bad%zz"), 400) // what is right of it is kept
	h.post(strings.Repeat("x", maxEvent+1), 413)
	h.post(`{"Records":[{"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"logs?endpoint=http://evil"},"object":{"key":"k"}}}]}`, 400)
	if resp := h.send(http.MethodHead, ""); resp.StatusCode != 200 {
		t.Errorf("HEAD: %d", resp.StatusCode)
	}
	if resp := h.send(http.MethodPost, put("page"), "Origin", "http://evil"); resp.StatusCode != 403 {
		t.Errorf("a page: %d", resp.StatusCode)
	}
	h.url += "/other"
	h.post(put("elsewhere"), 404)
	for _, key := range []string{"logs/a b+c%41", "logs/plain", "logs/by-sns", "logs/bridge+%41", "logs/not-\xff-utf8", "logs/good"} {
		until(t, key+" came", func() bool { return came.of(key) == 1 })
	}
	until(t, "nothing waits", func() bool { return h.feed.Stats().Waiting == 0 })
	if came.len() != 6 || h.feed.Stats().Strange != 5 {
		t.Errorf("%v, %+v", came.keys, h.feed.Stats())
	}
}

func TestAWebhookConfirmsAllowedTopicsOnly(t *testing.T) {
	asked := make(chan string, 10)
	var status atomic.Int64
	status.Store(http.StatusInternalServerError)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Query().Get("Action") + " " + r.URL.Query().Get("TopicArn") + " " + r.URL.Query().Get("Token")
		w.WriteHeader(int(status.Load()))
	}))
	defer server.Close()
	var came calls
	f, err := config(1).Webhook(WebhookConfig{Address: "webhook://127.0.0.1:0/s3", Dir: t.TempDir(), Topics: []string{topic}})
	if err != nil {
		t.Fatal(err)
	}
	f.source.(*webhook).topics.server = server.URL
	h := &hook{t, f, "http" + strings.TrimPrefix(f.String(), "webhook"), nil}
	run(t, f, func(_ context.Context, o Object) error { came.add(o.Key); return nil })
	h.post(sns(t, "SubscriptionConfirmation", topic+"2", ""), 403)
	h.post(sns(t, "Notification", topic+"2", put("other")), 403)
	if len(asked) > 0 {
		t.Errorf("another topic was confirmed: %s", <-asked)
	}
	h.post(sns(t, "SubscriptionConfirmation", topic, ""), 502) // SNS tries again
	status.Store(http.StatusOK)
	h.post(sns(t, "SubscriptionConfirmation", topic, ""), 200)
	for range 2 {
		if got, want := <-asked, "ConfirmSubscription "+topic+" tok&en"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	h.post(sns(t, "UnsubscribeConfirmation", topic, ""), 200)
	if came.len() > 0 {
		t.Errorf("%v", came.keys)
	}
	for _, arn := range []string{"", "logs", "arn:aws:sns:evil.example/#:123456789012:x"} {
		if _, err := config(1).Webhook(WebhookConfig{Address: "webhook://127.0.0.1:0/", Dir: t.TempDir(), Topics: []string{arn}}); !myrmidon.IsPermanent(err) {
			t.Errorf("%q: %v", arn, err)
		}
	}
}

func TestAWebhookAsksForItsToken(t *testing.T) {
	h := newHook(t, WebhookConfig{Dir: t.TempDir(), Token: "s3cret"}, func(context.Context, Object) error { return nil })
	for _, c := range []struct {
		header string
		want   int
	}{{"", 401}, {"Bearer other", 401}, {"Basic eDpvdGhlcg==", 401}, {"Bearer s3cret", 200}, {"Basic eDpzM2NyZXQ=", 200}} {
		resp := h.send(http.MethodPost, put("k"), "Authorization", c.header)
		if resp.StatusCode != c.want || c.want == 401 && !strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), "Basic") {
			t.Errorf("%q: %d %v", c.header, resp.StatusCode, resp.Header)
		}
	}
	for _, bad := range []WebhookConfig{
		{Address: "webhook://0.0.0.0:0/"},
		{Address: "webhook://:0/"},
		{Address: "webhook://127.0.0.1/"},
		{Address: "http://127.0.0.1:0/"},
		{Address: "webhook://u:secret@127.0.0.1:0/"},
		{Address: "webhook://127.0.0.1:0/?token=secret"},
		{Address: "webhook://127.0.0.1:0/", Cert: "c.pem"},
	} {
		bad.Dir = t.TempDir()
		if _, err := config(1).Webhook(bad); !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", bad.Address, err)
		}
	}
}

func TestAWebhookByTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := WebhookConfig{Dir: filepath.Join(t.TempDir(), "events"), Cert: filepath.Join(t.TempDir(), "c.pem"), Key: filepath.Join(t.TempDir(), "k.pem")}
	for file, block := range map[string]*pem.Block{cfg.Cert: {Type: "CERTIFICATE", Bytes: der}, cfg.Key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var came calls
	h := newHook(t, cfg, func(_ context.Context, o Object) error { came.add(o.Key); return nil })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	resp, err := client.Post(strings.Replace(h.url, "http:", "https:", 1), "application/json", strings.NewReader(put("k")))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	until(t, "it came", func() bool { return came.of("k") == 1 })
	if resp := h.send(http.MethodPost, put("k")); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("without TLS: status %d", resp.StatusCode)
	}
	cfg.Address, cfg.Key = "webhook://127.0.0.1:0/", filepath.Join(t.TempDir(), "none.pem")
	if _, err := config(1).Webhook(cfg); err == nil {
		t.Error("a key that is not there")
	}
}

// What was answered with 200 is done, whatever happens, once; what is too much is refused.
func TestAnEventThatWasAnsweredSurvives(t *testing.T) {
	cfg := WebhookConfig{Dir: filepath.Join(t.TempDir(), "events"), Most: 3}
	var came calls
	h := newHook(t, cfg, func(_ context.Context, o Object) error { came.add(o.Key); return errors.New("not now") })
	for range 5 {
		h.post(put("one"), 200)
	}
	h.post(put("t/w+o", "%ff"), 200)
	if resp := h.post(put("four"), 503); resp.Header.Get("Retry-After") != "30" {
		t.Errorf("%v", resp.Header)
	}
	until(t, "one is tried again", func() bool { return came.of("one") > 1 })
	if n := h.feed.Stats().Waiting; n != 3 {
		t.Errorf("%d wait", n)
	}
	h.end()
	// As a process leaves it that was killed while it wrote.
	if err := os.WriteFile(filepath.Join(cfg.Dir, "half.json.part"), []byte(`{"buck`), 0o600); err != nil {
		t.Fatal(err)
	}
	var again calls
	h = newHook(t, cfg, func(_ context.Context, o Object) error { again.add(o.Key); return nil })
	until(t, "all are done", func() bool { return h.feed.Stats().Waiting == 0 })
	for _, key := range []string{"one", "t/w o", "\xff"} {
		if again.of(key) != 1 {
			t.Errorf("%q came %d times", key, again.of(key))
		}
	}
	h.post(put("four"), 200)
	until(t, "the fourth came", func() bool { return again.of("four") == 1 && h.feed.Stats().Waiting == 0 })
	h.end()
	if left, err := os.ReadDir(cfg.Dir); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// More requests at once than are read are told to come again.
func TestAWebhookBoundsWhatItReads(t *testing.T) {
	var came calls
	h := newHook(t, WebhookConfig{Dir: t.TempDir()}, func(_ context.Context, o Object) error { came.add(o.Key); return nil })
	requests := h.feed.source.(*webhook).requests
	for range mostRequests {
		requests <- struct{}{}
	}
	if resp := h.post(put("k"), 503); resp.Header.Get("Retry-After") == "" {
		t.Errorf("%v", resp.Header)
	}
	<-requests
	h.post(put("k"), 200)
	until(t, "it came", func() bool { return came.of("k") == 1 })
}

// Two events that name neither ETag nor sequencer may be of two objects.
func TestEventsOfNoVersionAreKeptApart(t *testing.T) {
	s, err := openSpool(t.TempDir(), "webhook://x", 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Object{{Bucket: "b", Key: "k"}, {Bucket: "b", Key: "k"}} {
		if fresh, err := s.keep(o); !fresh || err != nil {
			t.Error(fresh, err)
		}
	}
}
