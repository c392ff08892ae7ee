package myrmidon_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// floors is the house: the floor of each package. A package imports only from lower
// floors. A new package must be placed here, and in DESIGN.md.
var floors = map[string]int{
	"myrmidon":                    0,
	"myrmidon/internal/checksum":  0,
	"myrmidon/internal/filelock":  0,
	"myrmidon/internal/limit":     0,
	"myrmidon/internal/pattern":   0,
	"myrmidon/internal/secreturl": 0,
	"myrmidon/internal/sigv4":     0,
	"myrmidon/internal/textgrid":  0,

	"myrmidon/elb":              1,
	"myrmidon/engine":           1,
	"myrmidon/haproxy":          1,
	"myrmidon/hls":              1,
	"myrmidon/internal/awsconf": 1,
	"myrmidon/internal/cost":    1,
	"myrmidon/object":           1,
	"myrmidon/sink":             1,

	"myrmidon/engine/jetstream":         2,
	"myrmidon/internal/clone/documents": 2,
	"myrmidon/internal/enrich":          2,
	"myrmidon/internal/notify":          2,
	"myrmidon/internal/ffmpeg":          2,
	"myrmidon/internal/haproxytop":      2,
	"myrmidon/object/s3":                2,
	"myrmidon/sink/elastic":             2,
	"myrmidon/sink/kinesis":             2,
	"myrmidon/sink/objects":             2,

	"myrmidon/internal/transcode": 3,
	"myrmidon/internal/clone":     3,
	"myrmidon/internal/logs":      3,

	"myrmidon/internal/workloads": 4,
	"myrmidon/internal/wire":      4,

	"myrmidon/cmd/myrmidon": 5,

	"myrmidon/bench/internal/machine": 0,
	"myrmidon/bench/internal/spread":  0,
	"myrmidon/bench/internal/quiet":   0,
	"myrmidon/bench/internal/role":    0,

	"myrmidon/bench/transcode":       5,
	"myrmidon/bench/clone":           5,
	"myrmidon/bench/engine":          5,
	"myrmidon/bench/haproxy":         5,
	"myrmidon/bench/haproxy/floor":   5,
	"myrmidon/bench/haproxy/library": 5,
	"myrmidon/bench/logs":            5,
	"myrmidon/bench/torture":         5,

	"myrmidon/bench/engine/rabbit": 5, // a module of its own
}

// suites are conformance suites and servers for tests: imported by tests and benchmarks
// only, they may import the package that they test.
var suites = map[string]bool{
	"myrmidon/engine/enginetest": true,
	"myrmidon/object/objecttest": true,
	"myrmidon/sink/sinktest":     true,

	// What tests and benchmarks run against.
	"myrmidon/internal/testkit/kinesalite": true,
	"myrmidon/internal/testkit/haproxyd":   true,
	"myrmidon/internal/testkit/long":       true,
	"myrmidon/internal/testkit/natsserver": true,
	"myrmidon/internal/testkit/netfault":   true,
	"myrmidon/internal/testkit/program":    true,
	"myrmidon/internal/testkit/s3server":   true,
	"myrmidon/internal/testkit/s3stub":     true,
	"myrmidon/internal/testkit/sinkfault":  true,
	"myrmidon/internal/testkit/sqsstub":    true,
}

// standAlone are the public packages that others import: standard library only.
var standAlone = []string{"myrmidon/elb", "myrmidon/haproxy", "myrmidon/hls"}

// adapters make a store or a sink from an address. Workloads see interfaces only.
var adapters = []string{"myrmidon/engine/jetstream", "myrmidon/object/s3", "myrmidon/sink/elastic", "myrmidon/sink/kinesis", "myrmidon/sink/objects"}

// anywhere are the modules that more than one package may import: see the second law.
func anywhere(module string) bool {
	return strings.HasPrefix(module, "golang.org/x/") || module == "github.com/aws/aws-sdk-go-v2"
}

// sources returns the imports of each package's files that are not tests, by package.
func sources(t *testing.T) map[string][]string {
	t.Helper()
	out := make(map[string][]string)
	err := fs.WalkDir(os.DirFS("."), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			if p != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || name == "tools" || name == "out") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := path.Join("myrmidon", path.Dir(p))
		for _, i := range f.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			out[pkg] = append(out[pkg], name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 5 {
		t.Fatalf("found only %d packages", len(out))
	}
	return out
}

func TestImportsGoDown(t *testing.T) {
	for pkg, imports := range sources(t) {
		if suites[pkg] {
			continue
		}
		floor, ok := floors[pkg]
		if !ok {
			t.Errorf("%s has no floor: place it in floors_test.go and DESIGN.md", pkg)
			continue
		}
		for _, i := range imports {
			if i != "myrmidon" && !strings.HasPrefix(i, "myrmidon/") {
				continue
			}
			if suites[i] && !strings.HasPrefix(pkg, "myrmidon/bench/") {
				t.Errorf("%s imports the test suite %s", pkg, i)
			} else if below, ok := floors[i]; ok && below >= floor {
				t.Errorf("%s (floor %d) imports %s (floor %d): imports go down, never sideways or up", pkg, floor, i, below)
			}
		}
	}
}

// modules are the third-party modules of go.mod.
func modules(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(f) >= 2 && strings.Contains(f[0], ".") && strings.HasPrefix(f[1], "v") {
			out = append(out, f[0])
		}
	}
	return out
}

func TestEachModuleIsImportedByOnePackage(t *testing.T) {
	users := make(map[string][]string)
	mods := modules(t)
	for pkg, imports := range sources(t) {
		if suites[pkg] || strings.HasPrefix(pkg, "myrmidon/cmd/") {
			continue
		}
		for _, i := range imports {
			for _, m := range mods {
				if (i == m || strings.HasPrefix(i, m+"/")) && !anywhere(m) && !slices.Contains(users[m], pkg) {
					users[m] = append(users[m], pkg)
				}
			}
		}
	}
	if len(users) == 0 {
		t.Fatal("no module is imported at all: the test reads go.mod wrongly")
	}
	for m, pkgs := range users {
		if len(pkgs) > 1 {
			slices.Sort(pkgs)
			t.Errorf("%s is imported by %s: give it one room", m, strings.Join(pkgs, " and "))
		}
	}
}

func TestWorkloadsSeeInterfacesOnly(t *testing.T) {
	for pkg, imports := range sources(t) {
		for _, i := range imports {
			if floors[pkg] == 3 && slices.Contains(adapters, i) {
				t.Errorf("%s imports the adapter %s: internal/wire makes adapters", pkg, i)
			}
			if slices.Contains(standAlone, pkg) && strings.Contains(strings.SplitN(i, "/", 2)[0], ".") {
				t.Errorf("%s imports %s, but stands alone: standard library only", pkg, i)
			}
			if slices.Contains(standAlone, pkg) && strings.HasPrefix(i, "myrmidon") {
				t.Errorf("%s imports %s, but stands alone", pkg, i)
			}
		}
	}
}
