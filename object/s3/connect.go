package s3

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/auth"
	"github.com/aws/smithy-go/logging"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"myrmidon"
	"myrmidon/internal/awsconf"
	"myrmidon/internal/sigv4"
)

const (
	// attempts is how often a request is sent at most, unless AWS_MAX_ATTEMPTS or the
	// profile says otherwise.
	attempts = 5
	// idleConnections are kept for the next request: as many as requests are under
	// way in a busy process.
	idleConnections = 1280
	// connBuffer is what a connection holds for each direction, for as long as it is kept:
	// enough for headers and small documents. Longer bodies are read and written past it.
	connBuffer = 4 << 10
)

// connect makes the client.
func (b *bucket) connect(ctx context.Context, cfg Config, tune func(*sdk.Options)) error {
	logger := logging.LoggerFunc(func(_ logging.Classification, format string, v ...any) {
		b.log.Debug("AWS SDK: " + fmt.Sprintf(format, v...))
	})
	from := awsconf.From{Profile: cfg.Profile, Region: cfg.Region, Base: aws.Config{Logger: logger}}
	which, err := clientOf(cfg.Client)
	if err != nil {
		return err
	}
	load := func(ctx context.Context) (aws.Config, error) {
		c, err := awsconf.Load(ctx, "s3: bucket "+cfg.Bucket, from)
		if err == nil && cfg.Role != "" {
			c.Credentials = assumed(c, cfg.Role)
		}
		return c, err
	}
	loaded, err := load(ctx)
	if err != nil {
		return err
	}
	var transport http.RoundTripper
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
			b.keys = awsconf.NewKeys(o.Credentials, func(ctx context.Context) (aws.CredentialsProvider, error) {
				again, err := load(ctx)
				return again.Credentials, err
			})
			o.Credentials = b.keys
		}
		o.HTTPClient, transport = b.watched(o.HTTPClient, cfg)
		tune(o)
		o.Retryer = b.retryer(o.Retryer)
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
	b.source = source{cfg.Profile, b.endpoint, cfg.Role}
	b.hot = viaSDK{b}
	if which == ownClient {
		if o := b.own(ctx, got, transport); o != nil {
			b.hot = o
		}
	}
	b.guard.dots.ask = func(ctx context.Context, key string) error {
		_, err := b.hot.head(ctx, key)
		return err
	}
	return nil
}

// clientOf returns the client that is asked for.
func clientOf(name string) (string, error) {
	if name == "" {
		name = os.Getenv(clientEnv)
	}
	switch name {
	case "", ownClient:
		return ownClient, nil
	case sdkClient:
		return sdkClient, nil
	}
	err := fmt.Errorf("s3: there is no client %.40q", name)
	return "", myrmidon.Permanent(myrmidon.WithHint(err, "set "+clientEnv+" to "+ownClient+" or "+sdkClient+", or not at all"))
}

// own returns a client of our own for where the SDK would send requests, or nil where they
// are signed otherwise than we do: without credentials, or in several regions at once.
func (b *bucket) own(ctx context.Context, o sdk.Options, transport http.RoundTripper) *own {
	retry, ok := o.Retryer.(aws.RetryerV2)
	if transport == nil || b.keys == nil || o.Credentials == nil || !ok || strings.Contains(o.Region, "fips") {
		return nil
	}
	at, err := o.EndpointResolverV2.ResolveEndpoint(ctx, sdk.EndpointParameters{
		Bucket:                         &b.name,
		Region:                         &o.Region,
		UseFIPS:                        aws.Bool(o.EndpointOptions.UseFIPSEndpoint == aws.FIPSEndpointStateEnabled),
		UseDualStack:                   aws.Bool(o.EndpointOptions.UseDualStackEndpoint == aws.DualStackEndpointStateEnabled),
		Endpoint:                       o.BaseEndpoint,
		ForcePathStyle:                 &o.UsePathStyle,
		Accelerate:                     &o.UseAccelerate,
		UseGlobalEndpoint:              aws.Bool(false),
		DisableMultiRegionAccessPoints: &o.DisableMultiRegionAccessPoints,
		UseArnRegion:                   &o.UseARNRegion,
		DisableS3ExpressSessionAuth:    o.DisableS3ExpressSessionAuth,
	})
	if err != nil || len(at.Headers) > 0 {
		return nil
	}
	region := o.Region
	if schemes, ok := auth.GetAuthOptions(&at.Properties); ok && len(schemes) > 0 {
		name, named := smithyhttp.GetSigV4SigningName(&schemes[0].SignerProperties)
		if schemes[0].SchemeID != "sigv4" && schemes[0].SchemeID != auth.SchemeIDSigV4 || named && name != "s3" {
			return nil
		}
		if r, ok := smithyhttp.GetSigV4SigningRegion(&schemes[0].SignerProperties); ok {
			region = r
		}
	}
	return &own{
		b: b, transport: transport, retry: retry, region: region,
		signer: sigv4.New(sigv4.Config{Service: "s3", SendHash: true}),
		scheme: at.URI.Scheme, host: at.URI.Host, base: strings.TrimSuffix(at.URI.EscapedPath(), "/"),
		checksums: o.RequestChecksumCalculation != aws.RequestChecksumCalculationWhenRequired,
		validates: o.ResponseChecksumValidation != aws.ResponseChecksumValidationWhenRequired,
	}
}

// watched gives the SDK's HTTP client the connections of a busy process, and watches over
// them. It also returns such connections for our own client; nil where the client is not one
// that has some.
func (b *bucket) watched(client sdk.HTTPClient, cfg Config) (sdk.HTTPClient, http.RoundTripper) {
	var direct http.RoundTripper
	if c, ok := client.(*awshttp.BuildableClient); ok {
		c = c.WithTransportOptions(func(t *http.Transport) {
			t.MaxIdleConns = idleConnections
			t.MaxIdleConnsPerHost = idleConnections
			t.ReadBufferSize = connBuffer
			t.WriteBufferSize = connBuffer
		})
		client = c
		t := c.GetTransport()
		t.DisableCompression = true // or net/http would unpack what is stored packed
		t.ForceAttemptHTTP2 = false // S3 has none, and one connection for all is slower
		direct = t
	}
	b.guard = &guard{next: client, stall: cfg.Stall, counts: &b.counts}
	return b.guard, direct
}

// CheckEndpoint says whether an endpoint is a URL that may be used, shown and kept: it
// holds no secret. The error is permanent and does not repeat one.
func CheckEndpoint(endpoint string) error { return awsconf.CheckEndpoint("s3", endpoint) }
