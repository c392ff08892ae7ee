package jetstream

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"strings"
	"testing"

	"myrmidon/engine"
)

func TestWhatIsPackedComesBack(t *testing.T) {
	noise := make([]byte, 2*packFrom)
	_, _ = rand.Read(noise)
	noise[0] = '{'
	for _, c := range []struct {
		name    string
		data    []byte
		smaller bool
	}{
		{"nothing", nil, false},
		{"short", []byte(`{"run":"a"}`), false},
		{"just too short", []byte(`"` + strings.Repeat("a", packFrom-3) + `"`), false},
		{"long", []byte(`"` + strings.Repeat("media/000017/", packFrom/10) + `"`), true},
		{"what cannot be packed", noise, false},
		{"more than a message", []byte(`"` + strings.Repeat("a", engine.MaxMessage) + `"`), false},
	} {
		got := pack(c.data)
		if smaller := len(got) < len(c.data); smaller != c.smaller {
			t.Errorf("%s: %d bytes packed are %d", c.name, len(c.data), len(got))
		}
		back, err := unpack(got)
		if err != nil || !bytes.Equal(back, c.data) {
			t.Errorf("%s: %d bytes came back as %d, error %v", c.name, len(c.data), len(back), err)
		}
	}
}

func TestForgedPacksAreErrors(t *testing.T) {
	bomb := append([]byte{packed}, binary.AppendUvarint(nil, 1<<31)...)
	for name, data := range map[string][]byte{
		"a byte": {packed}, "a bomb": bomb, "rubbish": {packed, 10, 200, 1, 2, 3},
		"cut off": pack([]byte(strings.Repeat("media/000017/", packFrom)))[:20],
	} {
		if out, err := unpack(data); err == nil {
			t.Errorf("%s: unpacked to %d bytes", name, len(out))
		}
	}
}
