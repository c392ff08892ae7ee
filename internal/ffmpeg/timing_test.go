package ffmpeg

import (
	"bytes"
	"errors"
	"math"
	"math/big"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pictures at these times, each lasting d ticks, all keyframes but where k says.
func stampsAt(d int32, times ...int64) []stamp {
	stamps := make([]stamp, len(times))
	for i, pts := range times {
		stamps[i] = stamp{pts, pts, d, flagKey}
	}
	return stamps
}

func TestAnalyse(t *testing.T) {
	ms := Rational{1, 1000}
	tests := []struct {
		name   string
		stamps []stamp
		hints  timingHints
		want   timing
	}{
		{
			"jitter within half a slot is constant",
			stampsAt(40, 5, 40, 91, 120, 160),
			timingHints{timeBase: ms, real: Rational{1000, 1}, mean: Rational{25, 1}},
			timing{start: 5, end: 200, frames: 5, slots: 5, rate: Rational{25, 1}, keyframes: []int64{5}, keyGap: []int64{35}},
		},
		{
			"frames in coded order are sorted",
			stampsAt(40, 0, 120, 40, 80),
			timingHints{timeBase: ms, real: Rational{25, 1}},
			timing{start: 0, end: 160, frames: 4, slots: 4, rate: Rational{25, 1}, keyframes: []int64{0}, keyGap: []int64{40}},
		},
		{
			"two frames at one time are variable",
			stampsAt(40, 0, 40, 40, 80),
			timingHints{timeBase: ms, real: Rational{25, 1}},
			timing{start: 0, end: 120, frames: 4, slots: 5, rate: Rational{48000, 1001}, variable: false},
		},
		{
			"fields with times of their own are joined",
			stampsAt(20, 0, 20, 40, 60, 80, 100),
			timingHints{timeBase: ms, real: Rational{50, 1}, mean: Rational{25, 1}, interlaced: true},
			timing{start: 0, end: 120, frames: 3, slots: 3, rate: Rational{25, 1}, keyframes: []int64{0}, keyGap: []int64{40}},
		},
		{
			"progressive pictures at twice the mean rate are not",
			stampsAt(20, 0, 20, 40, 60, 80, 100),
			timingHints{timeBase: ms, real: Rational{50, 1}, mean: Rational{25, 1}},
			timing{start: 0, end: 120, frames: 6, slots: 6, rate: Rational{50, 1}, keyframes: []int64{0}, keyGap: []int64{20}},
		},
		{
			"fields without times of their own are joined",
			[]stamp{{0, 0, 40, flagKey}, {noTime, 20, 40, 0}, {40, 40, 40, 0}, {noTime, 60, 40, 0}, {80, 80, 40, 0}, {noTime, 100, 40, 0}},
			timingHints{timeBase: ms, real: Rational{50, 1}, mean: Rational{25, 1}, interlaced: true},
			timing{start: 0, end: 120, frames: 3, slots: 3, rate: Rational{25, 1}, keyframes: []int64{0}, keyGap: []int64{0}},
		},
		{
			"without any time the place in the file counts",
			[]stamp{{noTime, noTime, 0, flagKey}, {noTime, noTime, 40, 0}},
			timingHints{timeBase: ms, real: Rational{25, 1}},
			timing{start: 0, end: 80, frames: 2, slots: 2, rate: Rational{25, 1}, keyframes: []int64{0}, keyGap: []int64{0}},
		},
		{
			"discarded frames do not count, but decoding begins there",
			[]stamp{{-80, -80, 40, flagKey | flagDiscard}, {-40, -40, 40, flagDiscard}, {0, 0, 40, 0}, {40, 40, 40, flagKey}},
			timingHints{timeBase: ms, real: Rational{25, 1}},
			timing{start: 0, end: 80, frames: 2, slots: 2, rate: Rational{25, 1}, keyframes: []int64{-80}, keyGap: []int64{120}},
		},
		{
			"keyframes are listed a second apart, gaps count all",
			stampsAt(400, 0, 400, 800, 1200, 1600, 2000, 2400),
			timingHints{timeBase: ms, real: Rational{5, 2}},
			timing{
				start: 0, end: 2800, frames: 7, slots: 7, rate: Rational{5, 2},
				keyframes: []int64{0, 1200, 2400}, keyGap: []int64{400, 400, 0},
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := analyse(test.stamps, test.hints)
			if err != nil {
				t.Fatal(err)
			}
			if test.name == "two frames at one time are variable" {
				// Three slots' time holds four frames: the grid has as many as fit.
				if !got.variable || got.frames != 4 || got.slots != slot(120, got.rate, ms) {
					t.Errorf("got %+v", got)
				}
				return
			}
			if d := cmp.Diff(test.want, got, cmp.AllowUnexported(timing{})); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestAnalyseRefusesTimeThatJumps(t *testing.T) {
	for _, times := range [][]int64{{0, 1 << 59}, {-1 << 60, 1 << 60}, {0, 49 * 3600 * 1000}} {
		if _, err := analyse(stampsAt(40, times...), timingHints{timeBase: Rational{1, 1000}}); !errors.Is(err, errTooLong) {
			t.Errorf("%v: got %v", times, err)
		}
	}
	if _, err := analyse(nil, timingHints{timeBase: Rational{1, 1000}}); !errors.Is(err, errNoFrames) {
		t.Errorf("no packets: got %v", err)
	}
	if _, err := analyse(stampsAt(1, 0), timingHints{timeBase: Rational{0, 1}}); !errors.Is(err, errNoTicking) {
		t.Errorf("no time base: got %v", err)
	}
}

func FuzzRescale(f *testing.F) {
	f.Add(int64(1), int64(1), int64(2))
	f.Add(int64(-3), int64(1), int64(2))
	f.Add(int64(math.MinInt64), int64(math.MaxInt64), int64(1))
	f.Fuzz(func(t *testing.T, a, b, c int64) {
		if b <= 0 || c <= 0 {
			return
		}
		// Half away from zero: (2|a|b + c) / 2c, with a's sign.
		n := new(big.Int).Mul(new(big.Int).Abs(big.NewInt(a)), big.NewInt(b))
		n.Div(n.Lsh(n, 1).Add(n, big.NewInt(c)), new(big.Int).Lsh(big.NewInt(c), 1))
		if a < 0 {
			n.Neg(n)
		}
		want := int64(0)
		switch {
		case n.IsInt64():
			want = n.Int64()
		case a < 0:
			want = math.MinInt64
		default:
			want = math.MaxInt64
		}
		if got := rescale(a, b, c); got != want && !(a < 0 && got == -math.MaxInt64 && want == math.MinInt64) {
			t.Errorf("rescale(%d, %d, %d) = %d, want %d", a, b, c, got, want)
		}
	})
}

// FuzzProbeScanner feeds the scanner what ffprobe might print about a hostile file,
// in one piece and in two, which must make no difference.
func FuzzProbeScanner(f *testing.F) {
	f.Add([]byte("packet|codec_type=video|stream_index=0|pts=0|dts=-1024|duration=512|flags=K_\n"+
		"packet|codec_type=audio|stream_index=1|pts=-1024|dts=-1024|duration=1024|flags=KD|side_data|skip_samples=1024\n\n"+
		"stream|index=0|codec_name=h264|codec_type=video|width=160|height=90|time_base=1/12288|r_frame_rate=24/1|tag:language=a\\|b\n"+
		"format|duration=3.000000\n"), 40)
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		var one, two probeScanner
		_, errOne := one.Write(b)
		at = min(max(at, 0), len(b))
		_, errTwo := two.Write(b[:at])
		if errTwo == nil {
			_, errTwo = two.Write(b[at:])
		}
		if (errOne == nil) != (errTwo == nil) {
			t.Fatalf("%v, and in two pieces %v", errOne, errTwo)
		}
		if errOne != nil {
			return
		}
		p, errOne := one.probe(Container{Name: "mov"}, 1000, 0, Outcome{})
		q, errTwo := two.probe(Container{Name: "mov"}, 1000, 0, Outcome{})
		if (errOne == nil) != (errTwo == nil) || errOne == nil && !bytes.Equal(asJSON(t, p), asJSON(t, q)) {
			t.Errorf("%+v, %v\n%+v, %v", p, errOne, q, errTwo)
		}
		if errOne == nil && (p.Video.Slots < 1 || p.Video.Frames < 1 || p.Video.Rate.Num < 1 || p.Video.Rate.Den < 1 ||
			len(p.Video.Keyframes) == 0 || p.Video.End <= p.Video.Start) {
			t.Errorf("a probe that no plan can use: %+v", p.Video)
		}
	})
}
