package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestAShipmentOfNothingSaysSo(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "in", "1_elasticloadbalancing_eu-west-1_app.web.50dc_20261120T1200Z_10.0.0.1_abc.log")
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ since, want string }{
		{"2026-11-01", "there is no object\n"},
		{"2027-01-01", "1 object there cannot hold lines of that time\n"},
	} {
		cmd := exec.Command("myrmidon", "logs", "ship", filepath.Dir(log), "--to", filepath.Join(dir, "out.ndjson"), "--since", c.since)
		cmd.Env = append(os.Environ(), "MYRMIDON_STATE="+filepath.Join(dir, "state"))
		said, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(said), c.want) {
			t.Errorf("since %s: %v, want %q in\n%s", c.since, err, c.want, said)
		}
		if err := os.WriteFile(log, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAMissingFlagIsAnErrorOfUsage(t *testing.T) {
	for command, flag := range map[string]string{"ship": "--to", "audit": "--to", "top": "--by"} {
		said, err := exec.Command("myrmidon", "logs", command, "x.log").CombinedOutput()
		if want := "myrmidon: " + flag + " is missing\n  "; status(err) != 2 || !strings.HasPrefix(string(said), want) {
			t.Errorf("logs %s: %v, want status 2 and %q\n%s", command, err, want, said)
		}
	}
}

// What is shipped into the folder that logs are read from would be read as logs next time.
func TestLogsAreNotShippedIntoTheirOwnFolder(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "a.log")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"out.ndjson lies in " + dir, []string{"ship", dir, "--to", "file://" + dir + "/sub/out.ndjson?rotate-bytes=1000000"}},
		{"s3://logs/a/out/ lies in s3://logs/a/", []string{"ship", "s3://logs/a/", "--to", "s3://logs/a/out/?gzip=true"}},
		{"out.ndjson lies in " + dir, []string{"ship", "--follow", dir, "--to", dir + "/out.ndjson"}},
		{"--sample 0 would be no line", []string{"ship", log, "--to", "-", "--sample", "0"}},
	} {
		cmd := exec.Command("myrmidon", append([]string{"logs"}, c.args...)...)
		cmd.Env = append(os.Environ(), "MYRMIDON_STATE="+filepath.Join(dir, "state"), "AWS_ENDPOINT_URL=http://127.0.0.1:1", "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b")
		if said, err := cmd.CombinedOutput(); status(err) != 2 || !strings.Contains(string(said), c.want) {
			t.Errorf("%v: %v, want status 2 and %q\n%s", c.args, err, c.want, said)
		}
	}
	cmd := exec.Command("myrmidon", "logs", "ship", log, "--to", dir+"/out.ndjson", "--quiet") // one file holds nothing
	cmd.Env = append(os.Environ(), "MYRMIDON_STATE="+filepath.Join(dir, "state"))
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, said)
	}
}
