package s3

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// assumed returns the credentials of a role, which those of cfg may assume, renewed before
// they expire. It needs sts:AssumeRole, and AWS_ENDPOINT_URL_STS where the service is not
// AWS's.
func assumed(cfg aws.Config, role string) aws.CredentialsProvider {
	client := sts.NewFromConfig(cfg, func(o *sts.Options) {
		if o.Region == "" {
			o.Region = "us-east-1"
		}
	})
	return aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(client, role, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = "myrmidon"
	}))
}
