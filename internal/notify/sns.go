package notify

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"myrmidon"
	"myrmidon/internal/pattern"
	"myrmidon/internal/secreturl"
)

// snsMessage is what a request of SNS says of itself. Source: Amazon SNS Developer Guide,
// "Parsing message formats".
type snsMessage struct {
	Type, TopicArn, Token string
}

var topicARN = pattern.Of(`^arn:aws(-cn|-us-gov)?:sns:([a-z0-9-]+):\d{12}:[A-Za-z0-9_-]{1,256}(?:\.fifo)?$`)

// topics are the topics that may subscribe.
type topics struct {
	client *http.Client
	server string // instead of that of the topic's region
}

func newTopics(arns []string) (topics, error) {
	for _, arn := range arns {
		if !topicARN().MatchString(arn) {
			return topics{}, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%.300q is no topic of SNS", arn),
				"a topic is arn:aws:sns:REGION:ACCOUNT:NAME"))
		}
	}
	return topics{client: &http.Client{Timeout: 10 * time.Second}}, nil
}

// confirm confirms a subscription of an allowed topic. The address that the message names is not
// used: anybody could have written it; the topic's own says where its SNS is.
func (t *topics) confirm(ctx context.Context, m snsMessage) error {
	part := topicARN().FindStringSubmatch(m.TopicArn)
	if part == nil || m.Token == "" {
		return errors.New("it has no topic or no token")
	}
	server := "https://sns." + part[2] + ".amazonaws.com"
	if part[1] == "-cn" {
		server += ".cn"
	}
	if t.server != "" {
		server = t.server
	}
	q := url.Values{"Action": {"ConfirmSubscription"}, "TopicArn": {m.TopicArn}, "Token": {m.Token}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	if err := secreturl.Do(t.client, req); err != nil {
		return fmt.Errorf("sns: ConfirmSubscription: %w", err)
	}
	return nil
}
