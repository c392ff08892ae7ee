package spread

import "testing"

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   Spread
		text   string
	}{
		{[]float64{2}, Spread{2, 2, 2}, "2.0"},
		{[]float64{3, 1, 2}, Spread{2, 1, 3}, "2.0 (1.0 to 3.0)"},
		{[]float64{4, 1, 2, 3}, Spread{2.5, 1, 4}, "2.5 (1.0 to 4.0)"},
	} {
		if got := Of(tt.values); got != tt.want || got.Format("%.1f") != tt.text {
			t.Errorf("%v: %+v, %s", tt.values, got, got.Format("%.1f"))
		}
	}
}
