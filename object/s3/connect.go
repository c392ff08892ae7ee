package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"

	"myrmidon"
)

const (
	// attempts is how often a request is sent at most, unless AWS_MAX_ATTEMPTS or the
	// profile says otherwise.
	attempts = 5
	// idleConnections are kept for the next request: as many as requests are under
	// way in a busy process.
	idleConnections = 512
	connBuffer      = 32 << 10
)

// connect makes the client.
func (b *bucket) connect(ctx context.Context, cfg Config, tune func(*sdk.Options)) error {
	logger := logging.LoggerFunc(func(_ logging.Classification, format string, v ...any) {
		b.log.Debug("AWS SDK: " + fmt.Sprintf(format, v...))
	})
	opts := []func(*config.LoadOptions) error{config.WithLogger(logger)}
	if cfg.Profile != "" {
		opts = append(opts, config.WithSharedConfigProfile(cfg.Profile))
	}
	if cfg.Region != "" {
		opts = append(opts, config.WithRegion(cfg.Region))
	}
	loaded, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return loadFailed(cfg.Bucket, err)
	}
	if loaded.RetryMaxAttempts == 0 {
		loaded.RetryMaxAttempts = attempts
	}
	client := sdk.NewFromConfig(loaded, func(o *sdk.Options) {
		if cfg.Endpoint != "" {
			o.BaseEndpoint = &cfg.Endpoint
		}
		if o.BaseEndpoint != nil {
			o.UsePathStyle = true
			if o.Region == "" {
				o.Region = "us-east-1"
			}
		}
		o.DisableLogOutputChecksumValidationSkipped = true
		if o.Credentials != nil {
			o.Credentials = &credentials{from: o.Credentials}
		}
		o.HTTPClient = b.watched(o.HTTPClient, cfg)
		tune(o)
	})
	got := client.Options()
	if got.Region == "" {
		return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("s3: bucket %s: no region is set", cfg.Bucket),
			"set AWS_REGION or the region of the profile, or write s3://"+cfg.Bucket+"?region=REGION"))
	}
	if got.BaseEndpoint != nil {
		if err := CheckEndpoint(*got.BaseEndpoint); err != nil {
			return err
		}
		b.endpoint = *got.BaseEndpoint
	}
	b.client = client
	return nil
}

// watched gives the SDK's HTTP client the connections of a busy process, and watches
// over them.
func (b *bucket) watched(client sdk.HTTPClient, cfg Config) sdk.HTTPClient {
	if c, ok := client.(*awshttp.BuildableClient); ok {
		client = c.WithTransportOptions(func(t *http.Transport) {
			t.MaxIdleConns = idleConnections
			t.MaxIdleConnsPerHost = idleConnections
			t.ReadBufferSize = connBuffer
			t.WriteBufferSize = connBuffer
		})
	}
	return &guard{next: client, stall: cfg.Stall, counts: &b.counts}
}

// CheckEndpoint says whether an endpoint is a URL that may be used, shown and kept: it
// holds no secret. The error is permanent and does not repeat one.
func CheckEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	var why string
	switch {
	case err != nil:
		why = "it is not a URL"
	case u.User != nil:
		why = "it holds a user name or a password"
	case strings.Contains(endpoint, "@"):
		why = `it holds an "@"`
	case u.Scheme != "http" && u.Scheme != "https":
		why = "it begins with neither http:// nor https://"
	case u.Hostname() == "":
		why = "it names no host"
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		why = "it has a query"
	}
	if why == "" {
		return nil
	}
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("s3: this endpoint cannot be used: %s", why),
		"an endpoint is http://host:port or https://host; keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile"))
}

// loadFailed explains an error of the configuration files.
func loadFailed(bucket string, err error) error {
	wrapped := fmt.Errorf("s3: bucket %s: read the AWS configuration: %w", bucket, err)
	var missing config.SharedConfigProfileNotExistError
	if errors.As(err, &missing) {
		wrapped = fmt.Errorf("s3: bucket %s: the AWS configuration has no profile %q", bucket, missing.Profile)
		return myrmidon.Permanent(myrmidon.WithHint(wrapped,
			"look at AWS_PROFILE, and at ~/.aws/config or AWS_CONFIG_FILE; `aws configure list-profiles` lists the profiles"))
	}
	return myrmidon.Permanent(myrmidon.WithHint(wrapped, "correct ~/.aws/config or the AWS_ variables of the environment"))
}

// credentials marks the errors of finding credentials, which look like those of any
// request.
type credentials struct {
	from aws.CredentialsProvider
	had  atomic.Bool // there are some, so that a later failure is one of the moment
}

// Retrieve returns the credentials, or a *credentialsError.
func (c *credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	found, err := c.from.Retrieve(ctx)
	if err != nil {
		return found, &credentialsError{err: err, had: c.had.Load()}
	}
	c.had.Store(true)
	return found, nil
}

type credentialsError struct {
	err error
	had bool
}

func (e *credentialsError) Error() string { return e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }
