package object_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"myrmidon"
	"myrmidon/object"
)

// The test binary starts itself again for what ends or limits a whole process.
const childVar, rootVar = "MYRMIDON_OBJECT_CHILD", "MYRMIDON_OBJECT_ROOT"

func TestMain(m *testing.M) {
	switch os.Getenv(childVar) {
	case "":
		os.Exit(m.Run())
	case "limit":
		os.Exit(limitedChild())
	case "writer":
		os.Exit(writingChild())
	case "full":
		os.Exit(fullDiskChild())
	}
	fmt.Println("no such child")
	os.Exit(2)
}

func child(t *testing.T, kind, root string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childVar+"="+kind, rootVar+"="+root)
	return cmd
}

// putTooMuch puts "k" and then replaces it by what the process cannot write. It
// reports on stdout what a parent compares.
func putTooMuch(root string, want error) int {
	d, err := object.NewDir(root)
	if err != nil {
		fmt.Println("NewDir:", err)
		return 1
	}
	failed := 0
	check := func(what string, ok bool, args ...any) {
		if !ok {
			failed = 1
			fmt.Println(append([]any{what}, args...)...)
		}
	}
	ctx := context.Background()
	check("first Put", d.Put(ctx, "a/k", strings.NewReader("old"), 3, object.Attrs{}) == nil)
	for _, key := range []string{"a/k", "new/k"} {
		body := io.LimitReader(zeros{}, 64<<20)
		err := d.Put(ctx, key, body, -1, object.Attrs{})
		check("Put", errors.Is(err, want), key, err)
		fmt.Println("error:", err)
		check("hint", myrmidon.IsPermanent(err) && strings.Contains(myrmidon.Hint(err), root), key, err)
		_, err = d.PutWith(ctx, key, io.LimitReader(zeros{}, 64<<20), 64<<20, object.PutOptions{Modified: time.Now(), Checksum: "CRC32C:AAAAAA=="})
		check("PutWith", errors.Is(err, want), key, err)
	}
	head, err := d.Head(ctx, "a/k")
	check("Head", err == nil && head.Size == 3, head, err)
	var left []string
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		left = append(left, path)
		return err
	})
	check("what is left", err == nil && len(left) == 3, left, err) // root, a, a/k
	return failed
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func limitedChild() int {
	limit := syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		fmt.Println("setrlimit:", err)
		return 1
	}
	return putTooMuch(os.Getenv(rootVar), syscall.EFBIG)
}

func TestDirSurvivesAFileSizeLimit(t *testing.T) {
	out, err := child(t, "limit", t.TempDir()).CombinedOutput()
	if err != nil {
		t.Errorf("the child says %v:\n%s", err, out)
	}
}

// writingChild puts version after version of "f/k". It announces each on stdout
// when half of its body is read, and goes on when a line comes on stdin.
func writingChild() int {
	d, err := object.NewDir(os.Getenv(rootVar))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	in := bufio.NewReader(os.Stdin)
	for i := 0; ; i++ {
		half := strings.Repeat(string(rune('a'+i%26)), 1<<20)
		wait := funcReader(func() error {
			fmt.Println("half")
			_, err := in.ReadString('\n')
			return err
		})
		body := io.MultiReader(strings.NewReader(half), wait, strings.NewReader(half))
		if err := d.Put(context.Background(), "f/k", body, 2<<20, object.Attrs{}); err != nil {
			fmt.Println(err)
			return 1
		}
	}
}

// funcReader is an empty reader that calls a function first.
type funcReader func() error

func (f funcReader) Read([]byte) (int, error) {
	if err := f(); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

func TestDirShowsNoPartOfAKilledPut(t *testing.T) {
	d := newDir(t, t.TempDir())
	for _, before := range []int{0, 1, 5} { // whole puts before the kill
		cmd := child(t, "writer", d.String())
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		for i := range before + 1 {
			line, err := lines.ReadString('\n')
			if line != "half\n" {
				t.Fatalf("the child says %q, %v", line, err)
			}
			if i < before {
				if _, err := io.WriteString(in, "go on\n"); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}

		if parts := len(tree(t, d)) - min(before, 1) - 1; parts != 1 {
			t.Errorf("the killed Put left %d temporary files in %q; the test wants to see one", parts, tree(t, d))
		}
		if before == 0 {
			same(t, "keys", keys(t, d, ""), []string{})
		} else {
			same(t, "keys", keys(t, d, ""), []string{"f/k"})
			r, info, err := d.Get(t.Context(), "f/k", 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil {
				t.Fatal(err)
			}
			last := string(rune('a' + before - 1))
			if info.Size != 2<<20 || strings.Count(string(data), last) != 2<<20 {
				t.Errorf("%d bytes of %.1q are there, want 2 MiB of %q", len(data), data, last)
			}
		}
		if n, err := d.Sweep(t.Context(), "", 0); n != 1 || err != nil {
			t.Errorf("Sweep = %d, %v, want 1", n, err)
		}
		noTemp(t, d)
	}
}
