// Package secreturl calls URLs that are secrets themselves, as those of webhooks and of
// confirmations are: no error has one.
package secreturl

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// most is how much of an answer is read, so that the connection can be used again.
const most = 64 << 10

// Do sends a request, reads what is answered and forgets it. An answer whose status is not
// 200 to 299 is an error.
func Do(client *http.Client, req *http.Request) error {
	resp, err := client.Do(req)
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // its text has the URL
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, most))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s answers with status %d", req.URL.Host, resp.StatusCode)
	}
	return nil
}
