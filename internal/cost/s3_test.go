package cost

import (
	"math"
	"testing"
)

func TestS3Bills(t *testing.T) {
	for name, tt := range map[string]struct {
		requests map[string]int64
		transfer int64
		usd      float64
	}{
		"nothing":                  {nil, -1, 0},
		"a thousand of each write": {map[string]int64{"list": 1000, "put": 1000, "copy": 1000, "part-copy": 1000, "post": 1000}, -1, 0.025},
		"a thousand of each read":  {map[string]int64{"get": 1000, "head": 1000}, -1, 0.0008},
		"deletes are free":         {map[string]int64{"delete": 1e9}, -1, 0},
		"7,500 copies":             {map[string]int64{"copy": 7500, "list": 16}, -1, 0.03758},
		"a GB to another region":   {map[string]int64{"copy": 1}, 1 << 30, 0.020005},
		"within a region":          {map[string]int64{"copy": 1}, 0, 0.000005},
	} {
		b := S3(tt.requests, tt.transfer)
		if math.Abs(float64(b.USD)-tt.usd) > 1e-9 || (b.Transfer == nil) != (tt.transfer < 0) || b.AsOf == "" || b.Source == "" {
			t.Errorf("%s: %+v, want $%v", name, b, tt.usd)
		}
	}
}
