package jetstream

import (
	"testing"
)

// While a cluster has no leader, a pull is answered by an error of the API.
func TestAnswersOfTheAPIThatPass(t *testing.T) {
	for data, passes := range map[string]bool{
		`{"type":"io.nats.jetstream.api.v1.consumer_getnext_response","error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`: true,
		`{"error":{"code":400,"err_code":10003,"description":"bad request"}}`:                                                                                          false,
		`{"type":"x"}`: false, "rubbish": false, "": false,
	} {
		if got := passing(apiError([]byte(data))); got != passes {
			t.Errorf("%q passes: %v, want %v", data, got, passes)
		}
	}
}
