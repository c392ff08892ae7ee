package enrich

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"myrmidon"
)

// database writes one with a network and its record.
func database(t testing.TB, kind, cidr string, record mmdbtype.Map) string {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: kind, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	_, network, err := net.ParseCIDR(cidr)
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Insert(network, record); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), kind+".mmdb")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

func databases(t testing.TB) []string {
	names := func(en string) mmdbtype.Map {
		return mmdbtype.Map{"names": mmdbtype.Map{"en": mmdbtype.String(en), "de": mmdbtype.String("x")}}
	}
	where := names("Germany")
	where["iso_code"] = mmdbtype.String("DE")
	return []string{
		database(t, "Test-City", "203.0.113.0/24", mmdbtype.Map{"country": where, "city": names(`Bad "Ems"`)}),
		database(t, "Test-ASN", "203.0.0.0/16", mmdbtype.Map{
			"autonomous_system_number": mmdbtype.Uint32(64500), "autonomous_system_organization": mmdbtype.String("Example"),
			"country": mmdbtype.String("of another type"),
		}),
	}
}

const rules = `
user_agent_parsers:
  - regex: '(Firefox)/(\d+)\.(\d+)'
os_parsers:
  - regex: '(Linux)'
device_parsers:
  - regex: '; (Pixel \d)'
    device_replacement: 'Google $1'
`

func open(t testing.TB, cfg Config) *Enricher {
	t.Helper()
	e, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func written(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "regexes.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestWhatIsKnownIsAdded(t *testing.T) {
	dbs, file := databases(t), written(t, rules)
	const agent = "Mozilla/5.0 (Linux; Pixel 7) Firefox/128.3"
	all := `"client_country":"DE","client_country_name":"Germany","client_city":"Bad \"Ems\"","client_asn":64500,"client_as_org":"Example"`
	for name, c := range map[string]struct {
		cfg                        Config
		doc, address, agent, added string
		encoded                    bool
	}{
		"all":                     {Config{GeoIP: dbs, UserAgent: file}, `{"a":1}`, "203.0.113.9", agent, `{"a":1,` + all + `,"user_agent_name":"Firefox","user_agent_version":"128.3","user_agent_os":"Linux","user_agent_device":"Google Pixel 7"}`, false},
		"nothing else":            {Config{GeoIP: dbs}, `{}`, "203.0.113.9", agent, `{` + all + `}`, false},
		"behind other text":       {Config{GeoIP: dbs[1:]}, `{"id":1,{}`, "203.0.1.9", "", `{"id":1,{"client_asn":64500,"client_as_org":"Example"}`, false},
		"names of ECS":            {Config{GeoIP: dbs, UserAgent: file, ECS: true, Fields: map[string]bool{"source.geo.city_name": true, "user_agent.os.name": true}}, `{}`, "203.0.113.9", agent, `{"source.geo.city_name":"Bad \"Ems\"","user_agent.os.name":"Linux"}`, false},
		"IPv4 in IPv6":            {Config{GeoIP: dbs[1:], Fields: map[string]bool{"client_asn": true}}, `{}`, "::ffff:203.0.113.9", "", `{"client_asn":64500}`, false},
		"an unknown address":      {Config{GeoIP: dbs, UserAgent: file}, `{"a":1}`, "198.51.100.1", "other", `{"a":1}`, false},
		"no address":              {Config{GeoIP: dbs}, `{"a":1}`, "what?", "", `{"a":1}`, false},
		"neither":                 {Config{GeoIP: dbs, UserAgent: file}, `{"a":1}`, "", "", `{"a":1}`, false},
		"a user agent of escapes": {Config{UserAgent: file, Fields: map[string]bool{"user_agent_os": true, "user_agent_device": true}}, `{}`, "", "(Linux;%20Pixel%207)", `{"user_agent_os":"Linux","user_agent_device":"Google Pixel 7"}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := open(t, c.cfg)
			for range 2 { // found, and remembered
				if diff := cmp.Diff(c.added, string(e.Append([]byte(c.doc), []byte(c.address), []byte(c.agent), c.encoded))); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

func TestTheBuiltinRulesKnowABrowser(t *testing.T) {
	e := open(t, Config{UserAgent: Builtin})
	const chrome = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36"
	var doc map[string]string
	if err := json.Unmarshal(e.Append([]byte("{}"), nil, []byte(chrome), false), &doc); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"user_agent_name": "Chrome", "user_agent_version": "120.0.0", "user_agent_os": "Windows", "user_agent_os_version": "10"}
	if diff := cmp.Diff(want, doc); diff != "" {
		t.Error(diff)
	}
}

func TestFilesThatCannotBeUsed(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no such database":   {GeoIP: []string{"/nowhere.mmdb"}},
		"no database":        {GeoIP: []string{written(t, rules)}},
		"no such rules":      {UserAgent: "/nowhere.yaml"},
		"no YAML":            {UserAgent: written(t, "\t{")},
		"no rules":           {UserAgent: written(t, "other: []\n")},
		"a rule that is bad": {UserAgent: written(t, "os_parsers:\n  - regex: '(?=x)'\n")},
	} {
		if e, err := Open(cfg); e != nil || !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	var c cache
	asked := 0
	find := func(text string) []byte { asked++; return []byte(text) }
	for i := range 5 * remembered {
		c.get([]byte("again"), find)
		if got := string(c.get(fmt.Append(nil, i), find)); got != fmt.Sprint(i) {
			t.Fatal(got)
		}
	}
	if n := len(c.young) + len(c.old); n > 2*remembered || asked != 5*remembered+1 {
		t.Errorf("%d are remembered, %d were asked for", n, asked)
	}
}

func TestManyGoroutinesAddAtOnce(t *testing.T) {
	e := open(t, Config{GeoIP: databases(t), UserAgent: written(t, rules)})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 300 {
				doc := e.Append([]byte("{}"), fmt.Appendf(nil, "203.0.113.%d", i%250), fmt.Appendf(nil, "Firefox/%d.0", i), false)
				if !strings.Contains(string(doc), fmt.Sprintf(`"user_agent_version":"%d.0"`, i)) {
					t.Errorf("%s", doc)
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkAppendOfWhatIsRemembered(b *testing.B) {
	e := open(b, Config{GeoIP: databases(b), UserAgent: written(b, rules)})
	doc := make([]byte, 0, 1024)
	for b.Loop() {
		doc = e.Append(append(doc[:0], '{', '}'), []byte("203.0.113.9"), []byte("Firefox/1.2 (Linux)"), false)
	}
}

func BenchmarkOpenOfTheBuiltinRules(b *testing.B) {
	for b.Loop() {
		if _, err := Open(Config{UserAgent: Builtin}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAUserAgentThatIsNew(b *testing.B) {
	e := open(b, Config{UserAgent: Builtin})
	for i := 0; b.Loop(); i++ {
		e.ofAgent(fmt.Sprintf("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.%d Safari/537.36", i))
	}
}
