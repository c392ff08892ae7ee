package cost

import (
	"math"
	"testing"
	"time"
)

func TestLambdaArithmetic(t *testing.T) {
	const gb = 1769.0 / 1024
	for _, test := range []struct {
		name        string
		cpu         time.Duration
		asked       int
		arch        Arch
		invocations int
		gbSeconds   float64
		usd         float64
		shown       string
	}{
		{"nothing costs nothing", 0, 0, X86, 0, 0, 0, "$0"},
		{"the ladder of a 24-second clip", 39 * time.Second, 3, X86, 3, 39 * gb, 39*gb*0.0000166667 + 3*2e-7, "$0.0011"},
		{"the same on arm", 39 * time.Second, 3, ARM, 3, 39 * gb, 39*gb*0.0000133334 + 3*2e-7, "$0.00090"},
		{"a source minute of 1.63 CPU-seconds each", 97800 * time.Millisecond, 5, X86, 5, 97.8 * gb, 97.8*gb*0.0000166667 + 1e-6, "$0.0028"},
		{"an invocation without CPU costs its request", 0, 1_000_000, X86, 1_000_000, 0, 0.20, "$0.20"},
		{"work takes one invocation at least", time.Second, 0, X86, 1, gb, gb*0.0000166667 + 2e-7, "$0.000029"},
		{"a part of a millisecond is billed whole", time.Nanosecond, 1, X86, 1, gb / 1000, gb*0.0000000166667 + 2e-7, "$0.00000023"},
		{"each invocation is rounded up", 10 * time.Nanosecond, 10, X86, 10, gb / 100, gb*0.000000166667 + 2e-6, "$0.0000023"},
		{"fifteen minutes fit one invocation", 900 * time.Second, 1, X86, 1, 900 * gb, 900*gb*0.0000166667 + 2e-7, "$0.026"},
		{"more takes another", 900*time.Second + 1, 1, X86, 2, 900.002 * gb, 900.002*gb*0.0000166667 + 4e-7, "$0.026"},
		{"negative time is none", -time.Second, -1, X86, 0, 0, 0, "$0"},
		{"an unknown architecture is x86", time.Second, 1, "mips", 1, gb, gb*0.0000166667 + 2e-7, "$0.000029"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Lambda(test.cpu, test.asked, test.arch)
			if got.Invocations != test.invocations {
				t.Errorf("Invocations = %d, want %d", got.Invocations, test.invocations)
			}
			if !near(got.GBSeconds, test.gbSeconds) {
				t.Errorf("GBSeconds = %.12g, want %.12g", got.GBSeconds, test.gbSeconds)
			}
			if !near(float64(got.USD), test.usd) {
				t.Errorf("USD = %.12g, want %.12g", float64(got.USD), test.usd)
			}
			if got.USD.String() != test.shown {
				t.Errorf("shown as %s, want %s", got.USD, test.shown)
			}
			if got.AsOf == "" || got.Source == "" || got.Region == "" {
				t.Errorf("%+v does not say where and when its prices are from", got)
			}
		})
	}
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(math.Abs(a), math.Abs(b)) }

func TestPricesAreDated(t *testing.T) {
	list := LambdaPrices()
	if _, err := time.Parse("2006-01", list.AsOf); err != nil {
		t.Errorf("AsOf: %v", err)
	}
	list.Prices[X86] = Price{}
	if LambdaPrices().Prices[X86].GBSecond == 0 {
		t.Error("a caller can change the list for others")
	}
}

func TestDollarsAreShownWithTheDigitsThatMatter(t *testing.T) {
	for _, test := range []struct {
		usd  USD
		want string
	}{
		{0, "$0"},
		{0.00112341, "$0.0011"},
		{0.0028, "$0.0028"},
		{0.001, "$0.0010"},
		{0.00099999, "$0.0010"},
		{0.0999, "$0.10"},
		{0.045, "$0.045"},
		{0.1, "$0.10"},
		{0.456, "$0.46"},
		{0.999, "$1.00"},
		{12.344, "$12.34"},
		{30240, "$30240.00"},
		{-0.0011, "-$0.0011"},
		{-3, "-$3.00"},
		{2e-7, "$0.00000020"},
		{1e-15, "$0.000000000000"},
	} {
		if got := test.usd.String(); got != test.want {
			t.Errorf("USD(%g) = %s, want %s", float64(test.usd), got, test.want)
		}
	}
}
