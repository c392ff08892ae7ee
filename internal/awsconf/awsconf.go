// Package awsconf reads the standard configuration of AWS: the environment, the files of
// profiles, SSO and the roles of machines, again where a session has expired ([Keys]). It is the
// one package that does; whoever speaks to a service begins with what it returns. Services that
// speak AWS's JSON protocol are called by it too ([JSON]).
package awsconf

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"

	"myrmidon"
)

// From says what of the configuration is asked for. All may be zero.
type From struct {
	Profile string     // "" means AWS_PROFILE or default
	Region  string     // "" means AWS_REGION or the profile's
	Base    aws.Config // its Logger is used
}

// Load reads the configuration. It sends no request. An error is permanent, begins with the
// name of what wanted the configuration, and has a hint.
func Load(ctx context.Context, who string, from From) (aws.Config, error) {
	var opts []func(*config.LoadOptions) error
	if from.Base.Logger != nil {
		opts = append(opts, config.WithLogger(from.Base.Logger))
	}
	if from.Profile != "" {
		opts = append(opts, config.WithSharedConfigProfile(from.Profile))
	}
	if from.Region != "" {
		opts = append(opts, config.WithRegion(from.Region))
	}
	loaded, err := config.LoadDefaultConfig(ctx, opts...)
	if err == nil {
		return loaded, nil
	}
	wrapped := fmt.Errorf("%s: read the AWS configuration: %w", who, err)
	var missing config.SharedConfigProfileNotExistError
	if errors.As(err, &missing) {
		wrapped = fmt.Errorf("%s: the AWS configuration has no profile %q", who, missing.Profile)
		return aws.Config{}, myrmidon.Permanent(myrmidon.WithHint(wrapped,
			"look at AWS_PROFILE, and at ~/.aws/config or AWS_CONFIG_FILE; `aws configure list-profiles` lists the profiles"))
	}
	return aws.Config{}, myrmidon.Permanent(myrmidon.WithHint(wrapped, "correct ~/.aws/config or the AWS_ variables of the environment"))
}

// CheckEndpoint says whether an endpoint is a URL that may be used, shown and kept: it
// holds no secret. The error is permanent, begins with the name of what wanted it, and does not
// repeat a secret.
func CheckEndpoint(who, endpoint string) error {
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
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s: this endpoint cannot be used: %s", who, why),
		"an endpoint is http://host:port or https://host; keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile"))
}
