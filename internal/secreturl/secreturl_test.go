package secreturl

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestErrorsDoNotHaveTheURL(t *testing.T) {
	status := http.StatusAccepted
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/loop") {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
			return
		}
		w.WriteHeader(status)
	}))
	ask := func(path string) error {
		req, err := http.NewRequest(http.MethodPost, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return Do(s.Client(), req)
	}
	if err := ask("/hidden"); err != nil {
		t.Error(err)
	}
	status = http.StatusForbidden
	refused := ask("/hidden")
	endless := ask("/hidden/loop")
	s.Close()
	for name, err := range map[string]error{"refused": refused, "endless": endless, "gone": ask("/hidden")} {
		if err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if refused != nil && !strings.Contains(refused.Error(), "status 403") {
		t.Error(refused)
	}
}
