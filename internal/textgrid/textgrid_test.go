package textgrid

import (
	"strings"
	"testing"
)

func TestWhatDoesNotFitIsCutThenLeftOut(t *testing.T) {
	table := Table{
		Columns: []Column{{Title: "NAME", Least: 6}, {Title: "N", Right: true}, {Title: "RARE", Rank: 2}, {Title: "MORE", Rank: 1}},
		Rows: [][]Cell{
			{{Text: "a long name"}, {Text: "1"}, {Text: "rare"}, {Text: "more", Paint: "31"}},
			{{Text: "日本語日本語"}, {Text: "1000"}, {}, {}},
		},
	}
	for width, want := range map[int]string{
		0:  "NAME             N  RARE  MORE\na long name      1  rare  more\n日本語日本語  1000\n",
		30: "NAME             N  RARE  MORE\na long name      1  rare  more\n日本語日本語  1000\n",
		24: "NAME       N  RARE  MORE\na lon~     1  rare  more\n日本~   1000\n",
		20: "NAME         N  MORE\na long ~     1  more\n日本語~   1000\n",
		12: "NAME       N\na lon~     1\n日本~   1000\n",
	} {
		var b strings.Builder
		if err := table.Write(&b, width, false); err != nil {
			t.Fatal(err)
		}
		if b.String() != want {
			t.Errorf("%d columns:\n%swant\n%s", width, b.String(), want)
		}
	}
	var b strings.Builder
	if err := table.Write(&b, 0, true); err != nil || !strings.Contains(b.String(), "\x1b[31mmore\x1b[0m") {
		t.Errorf("colours, %v: %q", err, b.String())
	}
}
