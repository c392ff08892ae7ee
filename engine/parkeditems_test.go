package engine

import (
	"encoding/json"
	"strings"
	"testing"

	"myrmidon"
)

func TestAParkedJobHoldsWhatItsItemsSaid(t *testing.T) {
	bad := func(i uint32, name, why string, note int) myrmidon.ItemResult {
		return myrmidon.ItemResult{Index: i, Name: name, Note: json.RawMessage(`"` + strings.Repeat("n", note) + `"`), Error: &myrmidon.Failure{Message: why}}
	}
	said := []myrmidon.ItemResult{
		{Index: 0, Name: "done"},
		bad(1, "tried again", "busy", 1),
		bad(2, "two", "torn", 1),
		bad(3, "three", "gone", maxParkedItems), // its note does not fit
		bad(4, "four", strings.Repeat("<", maxParkedItems/6), 1),
		bad(5, "five", "late", 1),
	}
	got := parkedItems(said, []uint32{2, 3, 4, 5})
	if len(got) != 3 || got[0].Name != "two" || got[0].Reason.Message != "torn" || len(got[0].Note) != 3 ||
		got[1].Name != "three" || got[1].Note != nil || got[2].Name != "five" {
		t.Errorf("%.300v", got)
	}
}
