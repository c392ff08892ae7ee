//go:build unix

package sink_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"myrmidon/sink"
)

// openTwice opens a file as two processes do.
func openTwice(t *testing.T, path string) (a, b *sink.File) {
	t.Helper()
	var both [2]*sink.File
	for i := range both {
		f, err := sink.NewFile(sink.FileConfig{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
		both[i] = f
	}
	return both[0], both[1]
}

const sharedVar = "SINK_TEST_SHARED_FILE"

// TestAWriteThatFailsTakesBackNoLineOfAnother runs itself under a limit of a file's size, where a
// write stops in its middle as on a full disk.
func TestAWriteThatFailsTakesBackNoLineOfAnother(t *testing.T) {
	path := os.Getenv(sharedVar)
	if path == "" {
		path = filepath.Join(t.TempDir(), "out.ndjson")
		c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		c.Env = append(os.Environ(), sharedVar+"="+path)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v:\n%s", err, out)
		}
		return
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 16, Max: 1 << 16}); err != nil {
		t.Fatal(err)
	}
	a, b := openTwice(t, path)
	for _, f := range []*sink.File{a, b} {
		if err := f.Send(t.Context(), records(3)); err != nil {
			t.Fatal(err)
		}
	}
	long := sink.Record{ID: "long", Data: []byte(`{"a":"` + strings.Repeat("x", 1<<17) + `"}`)}
	if err := a.Send(t.Context(), []sink.Record{long}); err == nil {
		t.Fatal("a line beyond the limit was written")
	}
	data, err := os.ReadFile(path)
	if n := bytes.Count(data, []byte("\n")); err != nil || n != 6 || !bytes.HasSuffix(data, []byte("\n")) {
		t.Errorf("the file holds %d lines (%v), want the 6 that were acknowledged:\n%s", n, err, data)
	}
}

func TestAFileThatIsOpenedWhileAnotherWritesLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.ndjson")
	a, _ := openTwice(t, path)
	long := sink.Record{ID: "long", Data: []byte(`{"a":"` + strings.Repeat("x", 4<<20) + `"}`)}
	const rounds = 20
	done := make(chan error, 1)
	go func() {
		for range rounds {
			if err := a.Send(t.Context(), []sink.Record{long}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	want := 0 // short lines
	for ended := false; !ended; want++ {
		_, b := openTwice(t, path)
		if err := b.Send(t.Context(), records(1)); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			ended = true
		default:
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, short := 0, 0
	for line := range bytes.Lines(data) {
		if len(line) == len(long.Data)+1 {
			got++
		} else {
			short++
		}
	}
	if got != rounds || short != want {
		t.Errorf("the file holds %d long lines and %d short ones, want %d and %d", got, short, rounds, want)
	}
}

func TestAFileThatIsPutAsideMeanwhileIsMadeAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.ndjson")
	a, _ := openTwice(t, path)
	for i := range 3 {
		if err := a.Send(t.Context(), records(2)); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := os.Rename(path, path+".1"); err != nil {
				t.Fatal(err)
			}
		}
	}
	for file, want := range map[string]int{path: 4, path + ".1": 2} {
		data, err := os.ReadFile(file)
		if n := bytes.Count(data, []byte("\n")); err != nil || n != want {
			t.Errorf("%s holds %d lines (%v), want %d", file, n, err, want)
		}
	}
}
