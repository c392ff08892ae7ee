// Package enrich says more of a log line than it says itself: where its client's address is,
// by databases in MaxMind's format (MMDB), and what its user agent is, by the rules of uap-core.
//
// All comes from files: nothing is asked over a network. A database is mapped into memory; the
// rules of uap-core take 11 MB, a tenth of a second to be read, and 3 ms for a user agent
// (go test -bench . here). So each address and each user agent is looked up once as long as it
// is remembered: the same ones come again and again.
package enrich

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/oschwald/maxminddb-golang/v2"
	"github.com/ua-parser/uap-go/uaparser"

	"myrmidon"
)

// Builtin, as Config.UserAgent, stands for the rules of uap-core that this program was built
// with.
const Builtin = "builtin"

// remembered is how many addresses, and how many user agents, are remembered twice over: see
// [cache].
const remembered = 32 << 10

// maxAgent is how many bytes of a user agent are looked at. Rules take time that grows with
// it, and no browser's has more.
const maxAgent = 1 << 10

// Config says which files there are, and what of them is wanted.
type Config struct {
	// GeoIP are files in MaxMind's format: City or Country, and ASN. Of what two say the
	// first counts.
	GeoIP []string
	// UserAgent is a file of uap-core's format (regexes.yaml), or Builtin; "" means none.
	UserAgent string
	ECS       bool // names of the Elastic Common Schema
	// Fields are the names that are wanted; nil means all.
	Fields map[string]bool
}

// field is one that is added.
type field struct{ flat, ecs string }

// The fields, in the order in which they are added.
var (
	country     = field{"client_country", "source.geo.country_iso_code"}
	countryName = field{"client_country_name", "source.geo.country_name"}
	city        = field{"client_city", "source.geo.city_name"}
	asn         = field{"client_asn", "source.as.number"}
	network     = field{"client_as_org", "source.as.organization.name"}

	browser        = field{"user_agent_name", "user_agent.name"}
	browserVersion = field{"user_agent_version", "user_agent.version"}
	system         = field{"user_agent_os", "user_agent.os.name"}
	systemVersion  = field{"user_agent_os_version", "user_agent.os.version"}
	device         = field{"user_agent_device", "user_agent.device.name"}
)

// IsField reports whether a name is of a field that may be added, under either kind of names.
func IsField(name string) bool {
	all := []field{country, countryName, city, asn, network, browser, browserVersion, system, systemVersion, device}
	return slices.ContainsFunc(all, func(f field) bool { return name == f.flat || name == f.ecs })
}

// Enricher adds fields to documents. It may be used from many goroutines.
type Enricher struct {
	cfg       Config
	databases []*maxminddb.Reader
	rules     *uaparser.Parser
	addresses cache
	agents    cache
}

// Open reads the files. Errors are permanent.
func Open(cfg Config) (_ *Enricher, err error) {
	e := &Enricher{cfg: cfg}
	defer func() {
		if err != nil {
			err = errors.Join(myrmidon.Permanent(err), e.Close())
		}
	}()
	for _, file := range cfg.GeoIP {
		db, err := maxminddb.Open(file)
		if err != nil {
			return nil, myrmidon.WithHint(fmt.Errorf("enrich: %s: %w", file, err), "a database of addresses is a file such as GeoLite2-City.mmdb")
		}
		e.databases = append(e.databases, db)
	}
	if cfg.UserAgent != "" {
		if e.rules, err = readRules(cfg.UserAgent); err != nil {
			return nil, myrmidon.WithHint(fmt.Errorf("enrich: %s: %w", cfg.UserAgent, err), "rules of user agents are a file such as uap-core's regexes.yaml, or the word "+Builtin)
		}
	}
	return e, nil
}

// readRules reads uap-core's rules. The library panics at a pattern that cannot be compiled.
func readRules(file string) (p *uaparser.Parser, err error) {
	defer func() {
		if bad := recover(); bad != nil {
			err = fmt.Errorf("%v", bad)
		}
	}()
	// Its own memory would be a second one beside ours.
	if file == Builtin {
		return uaparser.New(uaparser.WithCacheSize(1))
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p, err = uaparser.NewFromBytes(data)
	if err == nil && len(p.UA) == 0 && len(p.OS) == 0 && len(p.Device) == 0 {
		err = errors.New("it holds no rules")
	}
	return p, err
}

// Close gives the databases back. Nothing may be added any more.
func (e *Enricher) Close() (err error) {
	for _, db := range e.databases {
		err = errors.Join(err, db.Close())
	}
	e.databases = nil
	return err
}

// Append adds to the JSON object at the end of doc what is known of an address and a user agent,
// of which each may be empty, and returns the longer slice. encoded says that the user agent is percent-encoded,
// as CloudFront has it.
func (e *Enricher) Append(doc, address, agent []byte, encoded bool) []byte {
	var more [2][]byte
	if len(e.databases) > 0 && len(address) > 0 {
		more[0] = e.addresses.get(address, e.ofAddress)
	}
	if e.rules != nil && len(agent) > 0 {
		more[1] = e.agents.get(agent[:min(len(agent), maxAgent)], func(text string) []byte {
			if encoded {
				if plain, err := url.PathUnescape(text); err == nil {
					text = plain
				}
			}
			return e.ofAgent(text)
		})
	}
	for _, members := range more {
		if len(members) == 0 {
			continue
		}
		if doc = doc[:len(doc)-1]; doc[len(doc)-1] != '{' {
			doc = append(doc, ',')
		}
		doc = append(append(doc, members...), '}')
	}
	return doc
}

// ofAddress returns what the databases know, as members of a JSON object.
func (e *Enricher) ofAddress(text string) []byte {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return nil
	}
	w := members{cfg: &e.cfg}
	for _, db := range e.databases {
		found := db.Lookup(address)
		if found.Err() != nil || !found.Found() {
			continue
		}
		// What is of another type than in MaxMind's own databases is passed over.
		word := func(f field, path ...any) {
			var text string
			if found.DecodePath(&text, path...) == nil && text != "" {
				w.add(f, text)
			}
		}
		word(country, "country", "iso_code")
		word(countryName, "country", "names", "en")
		word(city, "city", "names", "en")
		var number uint32
		if found.DecodePath(&number, "autonomous_system_number") == nil && number > 0 {
			w.add(asn, number)
		}
		word(network, "autonomous_system_organization")
	}
	return w.text
}

// ofAgent returns what the rules know. "Other" is their word for nothing.
func (e *Enricher) ofAgent(text string) []byte {
	w := members{cfg: &e.cfg}
	word := func(f field, text string) {
		if text != "" && text != "Other" {
			w.add(f, text)
		}
	}
	ua := e.rules.ParseUserAgent(text)
	word(browser, ua.Family)
	word(browserVersion, versionOf(ua.Major, ua.Minor, ua.Patch))
	os := e.rules.ParseOs(text)
	word(system, os.Family)
	word(systemVersion, versionOf(os.Major, os.Minor, os.Patch, os.PatchMinor))
	word(device, e.rules.ParseDevice(text).Family)
	return w.text
}

// versionOf joins the parts of a version that there are.
func versionOf(parts ...string) string {
	n := slices.Index(parts, "")
	if n < 0 {
		n = len(parts)
	}
	return strings.Join(parts[:n], ".")
}

// members are written one behind the other, each name once.
type members struct {
	cfg  *Config
	text []byte
	had  []field
}

func (m *members) add(f field, value any) {
	name := f.flat
	if m.cfg.ECS {
		name = f.ecs
	}
	if m.cfg.Fields != nil && !m.cfg.Fields[f.flat] && !m.cfg.Fields[f.ecs] || slices.Contains(m.had, f) {
		return
	}
	m.had = append(m.had, f)
	data, _ := json.Marshal(value) // a string or a number
	if len(m.text) > 0 {
		m.text = append(m.text, ',')
	}
	m.text = append(append(append(m.text, '"'), name...), `":`...)
	m.text = append(m.text, data...)
}

// cache remembers answers in two halves: what is asked for is in the young one, and when that
// is full it becomes the old one, whose answers are forgotten unless they are asked for again.
type cache struct {
	mu         sync.Mutex
	young, old map[string][]byte
}

// get returns the answer to key. Two goroutines may find out the same at once.
func (c *cache) get(key []byte, find func(string) []byte) []byte {
	c.mu.Lock()
	answer, ok := c.young[string(key)]
	if !ok {
		if answer, ok = c.old[string(key)]; ok {
			c.put(string(key), answer)
		}
	}
	c.mu.Unlock()
	if ok {
		return answer
	}
	text := string(key)
	answer = find(text)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(text, answer)
	return answer
}

// put remembers an answer; mu is held.
func (c *cache) put(key string, answer []byte) {
	if c.young == nil || len(c.young) >= remembered {
		c.old, c.young = c.young, make(map[string][]byte)
	}
	c.young[key] = answer
}
