package jetstream

import (
	"encoding/json"
	"strings"
	"testing"
)

func FuzzValidJSONIsWhatEncodingJSONSays(f *testing.F) {
	for _, s := range []string{
		``, ` `, `{}`, `[]`, `{"a":[1,-0.5e+3,true,false,null,"\u00e9\n\\"]}`, ` [ 1 , 2 ] `, `01`, `1.`, `.5`, `-`, `1e`, `1e5`, `-0`,
		`"a`, `"\x"`, `"\u12g4"`, "\"\x01\"", "\"\xff\"", `{"a"}`, `{"a":}`, `{a:1}`, `{"a":1,}`, `[1,]`, `[1 2]`, `[1]2`, `{]`, `[}`, `tru`, `nul`, `"\`,
		strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth), strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1),
		strings.Repeat("[", maxDepth) + "1" + strings.Repeat("]", maxDepth),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := validJSON(b), json.Valid(b); got != want {
			t.Errorf("%q: valid %t, encoding/json says %t", b, got, want)
		}
	})
}
