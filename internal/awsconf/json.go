package awsconf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"myrmidon/internal/sigv4"
)

// skewed is from when on a clock counts as wrong: signatures are good for 5 minutes at least.
const skewed = 4 * time.Minute

// JSON calls a service that speaks AWS's JSON protocol (Kinesis, SQS). It is safe for
// concurrent use, and must not be copied.
type JSON struct {
	Endpoint string // where requests are posted, with its path
	Region   string
	Version  string // of the protocol: 1.0 or 1.1
	Target   string // what stands before the action: "AmazonSQS."
	Most     int64  // how many bytes of an answer are read
	Keys     *Keys
	Signer   *sigv4.Signer
	Client   *http.Client

	sent atomic.Uint64
	skew atomic.Int64 // nanoseconds that the server's clock is ahead
}

// Refusal is the error of an answer that is not 200.
type Refusal struct {
	Status  int
	Code    string // "ResourceNotFoundException", or ""
	Message string
	date    string
}

func (e *Refusal) Error() string {
	if e.Code == "" {
		return fmt.Sprintf("status %d", e.Status)
	}
	return fmt.Sprintf("%s: %.300s", e.Code, e.Message)
}

// IsExpired reports whether it was the session that was refused.
func (e *Refusal) IsExpired() bool {
	return e.Code == "ExpiredTokenException" || e.Code == "ExpiredToken"
}

// RenewError is the error of a session that has expired and could not be renewed.
type RenewError struct{ Err error }

func (e *RenewError) Error() string { return e.Err.Error() }
func (e *RenewError) Unwrap() error { return e.Err }

// Sent returns how many requests were sent.
func (j *JSON) Sent() uint64 { return j.sent.Load() }

// Call sends a request, and once more if it was the session or the clock that was refused.
// Its errors are those of the connection, a *[KeysError], a *[RenewError] or a *[Refusal].
func (j *JSON) Call(ctx context.Context, action string, body []byte) ([]byte, error) {
	keys, err := j.Keys.Retrieve(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := j.once(ctx, action, body, keys)
	var no *Refusal
	if !errors.As(err, &no) {
		return answer, err
	}
	switch {
	case no.IsExpired():
		renewed, renewErr := j.renewed(ctx, keys)
		if renewErr != nil {
			return nil, &RenewError{errors.Join(no, renewErr)}
		}
		return j.once(ctx, action, body, renewed)
	case j.adjust(no):
		return j.once(ctx, action, body, keys)
	}
	return nil, err
}

// renewed returns keys other than the old ones, whose session has expired.
func (j *JSON) renewed(ctx context.Context, old aws.Credentials) (aws.Credentials, error) {
	if err := j.Keys.Renew(ctx, old.SessionToken); err != nil {
		return old, err
	}
	return j.Keys.Retrieve(ctx)
}

// adjust learns the server's time from a signature that it found to be of another one.
func (j *JSON) adjust(no *Refusal) bool {
	switch no.Code {
	case "InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired", "RequestTimeTooSkewed":
	default:
		return false
	}
	at, err := http.ParseTime(no.date)
	if err != nil {
		return false
	}
	ahead := time.Until(at)
	if (ahead - time.Duration(j.skew.Load())).Abs() <= skewed {
		return false
	}
	j.skew.Store(int64(ahead))
	return true
}

// once sends a request. Source: Amazon SQS API reference, "Making requests using the AWS
// JSON protocol".
func (j *JSON) once(ctx context.Context, action string, body []byte, keys aws.Credentials) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, j.Endpoint, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-"+j.Version)
	req.Header.Set("X-Amz-Target", j.Target+action)
	j.Signer.Sign(req, sigv4.Credentials{AccessKey: keys.AccessKeyID, Secret: keys.SecretAccessKey, Token: keys.SessionToken},
		j.Region, sigv4.Hash(body), time.Now().Add(time.Duration(j.skew.Load())))
	j.sent.Add(1)
	resp, err := j.Client.Do(req)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, j.Most))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return answer, nil
	}
	var said struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
		Upper   string `json:"Message"`
	}
	no := &Refusal{Status: resp.StatusCode, date: resp.Header.Get("Date")}
	if json.Unmarshal(answer, &said) == nil {
		code := said.Type
		if h := resp.Header.Get("X-Amzn-Errortype"); code == "" {
			code, _, _ = strings.Cut(h, ":")
		}
		no.Code = code[strings.LastIndexByte(code, '#')+1:]
		no.Message = said.Message + said.Upper
	}
	return nil, no
}
