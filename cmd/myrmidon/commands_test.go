package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"myrmidon/engine"
)

func TestEveryCommandHasAShortTextAndAnExampleThatIsItsOwn(t *testing.T) {
	a := &app{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)}
	a.screen = newScreen(a.stderr)
	var walk func(c *cobra.Command)
	seen := 0
	walk = func(c *cobra.Command) {
		seen++
		if c.Short == "" || !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: short %q, example %q: the example must show the command itself", c.CommandPath(), c.Short, c.Example)
		}
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  ") {
				t.Errorf("%s: example line %q is not indented", c.CommandPath(), line)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(a.root())
	if seen < 12 {
		t.Fatalf("only %d commands", seen)
	}
}

func TestACommandMadeAloneIsThatOfTheTree(t *testing.T) {
	var compare func(c *cobra.Command)
	compare = func(c *cobra.Command) {
		path := strings.Fields(c.CommandPath())[1:]
		alone, rest, err := new(app).root(append(path, "an argument")...).Find(path)
		if err != nil || len(rest) > 0 {
			t.Fatalf("%s: %v, %q is left", c.CommandPath(), err, rest)
		}
		if alone.UsageString() != c.UsageString() {
			t.Errorf("%s has, made alone, the usage\n%s\nand among all\n%s", c.CommandPath(), alone.UsageString(), c.UsageString())
		}
		for _, sub := range c.Commands() {
			compare(sub)
		}
	}
	for _, c := range new(app).root().Commands() {
		compare(c)
	}
	for _, words := range [][]string{{"help", "ls"}, {"--json", "ls"}, {"lss"}, {"__complete", "l"}} {
		if n, all := len(new(app).root(words...).Commands()), len(new(app).root().Commands()); n != all {
			t.Errorf("for %q there are %d commands, want all %d", words, n, all)
		}
	}
	if n := len(new(app).root("ls", "x").Commands()); n != 1 {
		t.Errorf("for ls there are %d commands, want it alone", n)
	}
}

func TestNumbersAreWrittenForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0:00", 24 * time.Second: "0:24", 11*time.Second + 600*time.Millisecond: "0:12",
		83 * time.Minute: "1:23:00", 59*time.Minute + 59*time.Second: "59:59",
	} {
		if got := clock(d); got != want {
			t.Errorf("clock(%v) = %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 14_240_000: "14.2 MB", 371_000_000: "371 MB", 5e15: "5000 TB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
	for share, want := range map[float64]string{-1: "[--------------------]", 0.5: "[##########----------]", 2: "[####################]"} {
		if got := bar(share); got != want {
			t.Errorf("bar(%v) = %s, want %s", share, got, want)
		}
	}
	if plural(1, "chunk") != "1 chunk" || plural(0, "chunk") != "0 chunks" {
		t.Error("plural is wrong")
	}
}

func TestRunKeepsTheDurabilityItWasBegunWithUnlessAnotherIsAskedFor(t *testing.T) {
	for _, c := range []struct {
		name        string
		asked, want string
	}{{"a run of level second goes on as second", "", "second"}, {"a level that is asked for wins", "process", "process"}} {
		t.Run(c.name, func(t *testing.T) {
			a := &app{stdout: new(bytes.Buffer), stderr: new(bytes.Buffer)}
			a.screen = newScreen(a.stderr)
			resume, _, err := a.root().Find([]string{"runs", "resume"})
			if err != nil {
				t.Fatal(err)
			}
			if c.asked != "" {
				if err := resume.ParseFlags([]string{"--durability", c.asked}); err != nil {
					t.Fatal(err)
				}
			}
			if err := a.prepare(resume, nil); err != nil {
				t.Fatal(err)
			}
			a.keepDurability(engine.Info{Durability: "second"})
			if a.durability != c.want {
				t.Errorf("durability %s, want %s", a.durability, c.want)
			}
		})
	}
}

func TestNamesFromOutsideCannotSteerTheTerminal(t *testing.T) {
	if got, want := plain("a\x1b[31m\nrun b\u009b.mp4 日本"), "a?[31m?run b?.mp4 日本"; got != want {
		t.Errorf("plain wrote %q, want %q", got, want)
	}
	if got, want := plainLines("one\ntwo\a"), "one\ntwo?"; got != want {
		t.Errorf("plainLines wrote %q, want %q", got, want)
	}
}

func TestProgressThatIsNoTerminalIsWrittenNowAndThen(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	for range 100 {
		s.foot("half done")
	}
	if got := out.String(); got != "half done\n" {
		t.Errorf("wrote %q, want one line", got)
	}
	s.clear()
	if strings.Contains(out.String(), "\x1b") {
		t.Error("escape sequences went to something that is no terminal")
	}
}
