package object_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"myrmidon"
	"myrmidon/object"
	"myrmidon/object/objecttest"
)

func TestDir(t *testing.T) {
	for name, sync := range map[string]bool{"as usual": false, "power-safe": true} {
		t.Run(name, func(t *testing.T) {
			objecttest.Run(t, func(t *testing.T) object.Store {
				d := newDir(t, filepath.Join(t.TempDir(), "not", "there yet"))
				d.Sync = sync
				t.Cleanup(func() { noTemp(t, d) })
				return d
			}, objecttest.Options{Folders: true, Keys: 1500})
		})
	}
}

func newDir(t *testing.T, root string) *object.Dir {
	t.Helper()
	d, err := object.NewDir(root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// noTemp fails the test if there is a temporary file anywhere in d.
func noTemp(t *testing.T, d *object.Dir) {
	t.Helper()
	for _, name := range tree(t, d) {
		if strings.Contains(name, ".part") {
			t.Errorf("a temporary file is left: %s", name)
		}
	}
}

// tree returns the paths of all that is in d, folders with a "/" behind.
func tree(t *testing.T, d *object.Dir) []string {
	t.Helper()
	got := []string{}
	err := filepath.WalkDir(d.String(), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || path == d.String() {
			return nil
		}
		name, _ := filepath.Rel(d.String(), path)
		if e.IsDir() {
			name += "/"
		}
		got = append(got, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func put(t *testing.T, d *object.Dir, key, data string) {
	t.Helper()
	if err := d.Put(t.Context(), key, strings.NewReader(data), int64(len(data)), object.Attrs{}); err != nil {
		t.Fatalf("Put(%q): %v", key, err)
	}
}

func keys(t *testing.T, d *object.Dir, prefix string) []string {
	t.Helper()
	got := []string{}
	for info, err := range d.List(t.Context(), prefix, "") {
		if err != nil {
			t.Fatalf("List(%q): %v", prefix, err)
		}
		got = append(got, info.Key)
	}
	return got
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestDirIsAFolderOfPlainFiles(t *testing.T) {
	d := newDir(t, filepath.Join(t.TempDir(), "out"))
	put(t, d, "talk/hls/master.m3u8", "#EXTM3U")
	data, err := os.ReadFile(filepath.Join(d.String(), "talk/hls/master.m3u8"))
	if err != nil || string(data) != "#EXTM3U" {
		t.Errorf("the file holds %q, %v", data, err)
	}
	same(t, "tree", tree(t, d), []string{"talk/", "talk/hls/", "talk/hls/master.m3u8"})
	path, err := d.Path("talk/hls/master.m3u8")
	if want := filepath.Join(d.String(), "talk", "hls", "master.m3u8"); path != want || err != nil {
		t.Errorf("Path = %q, %v, want %q", path, err, want)
	}
	if path, err := d.Path("not/yet"); err != nil || path == "" {
		t.Errorf("Path of no object = %q, %v, want a path", path, err)
	}
}

func TestDirLeavesNoEmptyFolders(t *testing.T) {
	d := newDir(t, filepath.Join(t.TempDir(), "out"))
	put(t, d, "a/b/c", "x")
	if err := os.Mkdir(filepath.Join(d.String(), "mine"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"p/q/r", "a/new/x", "mine/x"} {
		if err := d.Put(t.Context(), key, strings.NewReader("x"), 2, object.Attrs{}); err == nil {
			t.Errorf("Put(%q) of a short body = nil", key)
		}
	}
	same(t, "after failed puts", tree(t, d), []string{"a/", "a/b/", "a/b/c", "mine/"})
	if err := d.Delete(t.Context(), "a/b/c"); err != nil {
		t.Fatal(err)
	}
	same(t, "after the last object's delete", tree(t, d), []string{"mine/"})
	put(t, d, "mine", "an empty folder is in nobody's way")
	same(t, "keys", keys(t, d, ""), []string{"mine"})
}

func TestDirKeepsKeysInsideWhateverLinksSay(t *testing.T) {
	top := t.TempDir()
	d := newDir(t, filepath.Join(top, "root"))
	put(t, d, "in/file", "inside")
	outside := filepath.Join(top, "outside")
	if err := os.Mkdir(outside, 0o755); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"abs": outside, "rel": "../outside", "file-abs": secret, "file-rel": "../outside/secret",
		"loop": "loop", "up": "..", "nothing": "nowhere", "here": ".", "inner": "in", "inner-file": "in/file", "in/side": "../in/file",
	} {
		if err := os.Symlink(target, filepath.Join(d.String(), name)); err != nil {
			t.Fatal(err)
		}
	}

	for _, key := range []string{"abs/secret", "rel/secret", "file-abs", "file-rel", "up/outside/secret", "here/abs/secret"} {
		if r, _, err := d.Get(t.Context(), key, 0, -1); !errors.Is(err, fs.ErrPermission) || !myrmidon.IsPermanent(err) {
			t.Errorf("Get(%q) = %v, %v, want a permanent fs.ErrPermission", key, r, err)
		}
		if _, err := d.Head(t.Context(), key); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Head(%q) = %v, want fs.ErrPermission", key, err)
		}
		if path, err := d.Path(key); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Path(%q) = %q, %v, want fs.ErrPermission", key, path, err)
		}
	}
	for _, key := range []string{"abs/new", "rel/new", "up/new", "abs/sub/new"} {
		err := d.Put(t.Context(), key, strings.NewReader("x"), 1, object.Attrs{})
		if !errors.Is(err, fs.ErrPermission) || myrmidon.Hint(err) == "" {
			t.Errorf("Put(%q) = %v, want fs.ErrPermission and a hint", key, err)
		}
	}
	for _, key := range []string{"abs/secret", "rel/secret"} {
		if err := d.Delete(t.Context(), key); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Delete(%q) = %v, want fs.ErrPermission", key, err)
		}
	}
	if _, err := d.Head(t.Context(), "loop"); err == nil {
		t.Error("Head of a link to itself = nil")
	}
	for _, key := range []string{"inner/file", "inner-file", "here/in/file"} {
		if _, err := d.Head(t.Context(), key); err != nil {
			t.Errorf("Head(%q) through a link inside = %v", key, err)
		}
	}
	same(t, "keys", keys(t, d, ""), []string{"in/file", "in/side", "inner-file"})
	same(t, "keys through a link", keys(t, d, "inner/"), []string{})

	// Links are replaced and deleted as links.
	put(t, d, "file-abs", "mine now")
	for _, key := range []string{"file-rel", "inner-file", "inner"} {
		if err := d.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete(%q): %v", key, err)
		}
	}
	same(t, "keys", keys(t, d, ""), []string{"file-abs", "in/file", "in/side"})
	if data, err := os.ReadFile(secret); string(data) != "secret" {
		t.Errorf("the file outside holds %q, %v", data, err)
	}
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 {
		t.Errorf("outside are %v, %v, want the secret alone", entries, err)
	}
}

func TestDirTakesOnlyRegularFilesForObjects(t *testing.T) {
	d := newDir(t, t.TempDir())
	put(t, d, "file", "x")
	if err := syscall.Mkfifo(filepath.Join(d.String(), "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	// Without care, opening the FIFO would wait for ever.
	if _, _, err := d.Get(t.Context(), "fifo", 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Get of a FIFO = %v, want fs.ErrNotExist", err)
	}
	if _, err := d.Head(t.Context(), "fifo"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Head of a FIFO = %v, want fs.ErrNotExist", err)
	}
	same(t, "keys", keys(t, d, ""), []string{"file"})
}

func TestDirHidesTemporaryFiles(t *testing.T) {
	d := newDir(t, t.TempDir())
	const name = ".myrmidon-0123.part"
	if err := os.WriteFile(filepath.Join(d.String(), name), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	same(t, "keys", keys(t, d, ""), []string{})
	for _, key := range []string{name, "a/" + name, name + "/a"} {
		err := d.Put(t.Context(), key, strings.NewReader(""), 0, object.Attrs{})
		_, headErr := d.Head(t.Context(), key)
		if !myrmidon.IsPermanent(err) || !myrmidon.IsPermanent(headErr) || !myrmidon.IsPermanent(d.Delete(t.Context(), key)) {
			t.Errorf("Put, Head of %q = %v, %v, want permanent errors", key, err, headErr)
		}
	}
	put(t, d, ".myrmidon-notes", "a name of that kind, but not such a name")
}

func TestDirCopiesFilesWholeAndInsideOneFolder(t *testing.T) {
	d := newDir(t, t.TempDir())
	src := filepath.Join(t.TempDir(), "src")
	data := strings.Repeat("0123456789abcdef", 1<<16)
	if err := os.WriteFile(src, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		size int64
		ok   bool
	}{{"known", 1 << 20, true}, {"unknown", -1, true}, {"too large", 1<<20 + 1, false}, {"too small", 1<<20 - 1, false}} {
		f, err := os.Open(src)
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(d.Put(t.Context(), test.name, f, test.size, object.Attrs{}), f.Close())
		if (err == nil) != test.ok {
			t.Errorf("Put of a file, size %s: %v", test.name, err)
		}
	}
	same(t, "keys", keys(t, d, ""), []string{"known", "unknown"})
	r, _, err := d.Get(t.Context(), "known", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil || string(got) != data {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
}

// gate is a body that tells when it is first read, and then waits.
type gate struct {
	once    sync.Once
	reading chan struct{}
	open    chan struct{}
}

func (g *gate) Read([]byte) (int, error) {
	g.once.Do(func() { close(g.reading) })
	<-g.open
	return 0, io.EOF
}

func TestDirFindsAFolderThatCameDuringAPut(t *testing.T) {
	d := newDir(t, t.TempDir())
	g := &gate{reading: make(chan struct{}), open: make(chan struct{})}
	done := make(chan error)
	go func() { done <- d.Put(t.Context(), "a", g, -1, object.Attrs{}) }()
	<-g.reading
	put(t, d, "a/b", "x")
	close(g.open)
	if err := <-done; !myrmidon.IsPermanent(err) || myrmidon.Hint(err) == "" {
		t.Errorf("Put of a, beside a/b = %v, want a permanent error with a hint", err)
	}
	same(t, "tree", tree(t, d), []string{"a/", "a/b"})
}

func TestDirSweepsOnlyWhatIsAbandoned(t *testing.T) {
	d := newDir(t, t.TempDir())
	g := &gate{reading: make(chan struct{}), open: make(chan struct{})}
	done := make(chan error)
	go func() { done <- d.Put(t.Context(), "a/living", g, -1, object.Attrs{}) }()
	<-g.reading

	for _, name := range []string{"a/.myrmidon-1.part", "b/c/.myrmidon-2.part", "b/.myrmidon-3.txt", ".myrmidon-4.part"} {
		path := filepath.Join(d.String(), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(filepath.Join(d.String(), ".myrmidon-4.part"), old, old); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		prefix string
		older  time.Duration
		want   int
	}{
		{"", 24 * time.Hour, 1},
		{"b/c/x", 0, 1},
		{"nothing/", 0, 0},
		{"../", 0, 0},
		{"", 0, 1},
		{"", 0, 0},
	} {
		got, err := d.Sweep(t.Context(), test.prefix, test.older)
		if got != test.want || err != nil {
			t.Errorf("Sweep(%q, %v) = %d, %v, want %d", test.prefix, test.older, got, err, test.want)
		}
	}
	close(g.open)
	if err := <-done; err != nil {
		t.Errorf("a Put during sweeps: %v", err)
	}
	same(t, "keys", keys(t, d, ""), []string{"a/living", "b/.myrmidon-3.txt"})
}

func TestNewDirAndWritableNameTheFolderAndTheRemedy(t *testing.T) {
	top := t.TempDir()
	file := filepath.Join(top, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := object.NewDir(""); err == nil {
		t.Error(`NewDir("") = nil`)
	}
	_, err := object.NewDir(file)
	checkUserError(t, "NewDir of a file", err, file, syscall.ENOTDIR)

	d := newDir(t, filepath.Join(top, "file-to-be"))
	if err := os.WriteFile(d.String(), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	checkUserError(t, "Writable of a file", d.Writable(t.Context()), d.String(), syscall.ENOTDIR)
	checkUserError(t, "Put below a file", d.Put(t.Context(), "k", strings.NewReader(""), 0, object.Attrs{}), d.String(), syscall.ENOTDIR)

	for _, root := range []string{top, filepath.Join(top, "new/and/deep")} {
		if err := newDir(t, root).Writable(t.Context()); err != nil {
			t.Errorf("Writable of %s: %v", root, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newDir(t, top).Writable(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Writable = %v, want context.Canceled", err)
	}
	same(t, "what Writable leaves", tree(t, newDir(t, top)), []string{"file", "file-to-be"})
}

// sysfs denies new files to everybody, root too.
func TestDirSaysThatItIsDenied(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs Linux's /sys")
	}
	for _, root := range []string{"/sys/kernel", "/sys/kernel/myrmidon/new"} {
		d := newDir(t, root)
		checkUserError(t, "Writable", d.Writable(t.Context()), root, fs.ErrPermission)
		err := d.Put(t.Context(), "new", strings.NewReader(""), 0, object.Attrs{})
		checkUserError(t, "Put", err, root, fs.ErrPermission)
	}
}

// checkUserError says whether err is one that a user can act on.
func checkUserError(t *testing.T, what string, err error, folder string, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s = %v, want an error that wraps %v", what, err, want)
		return
	}
	if !myrmidon.IsPermanent(err) {
		t.Errorf("%s = %v, want it permanent", what, err)
	}
	if !strings.Contains(err.Error(), folder) || !strings.Contains(myrmidon.Hint(err), folder) {
		t.Errorf("%s = %v (hint: %s), want both to name %s", what, err, myrmidon.Hint(err), folder)
	}
}

// A folder that somebody makes and removes all the time is no object in the way.
func TestPutsIntoAFolderThatComesAndGoes(t *testing.T) {
	dir := t.TempDir()
	store, err := object.NewDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	stop, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		folder := filepath.Join(dir, "folder")
		for {
			select {
			case <-stop:
				return
			default:
				_ = os.Mkdir(folder, 0o777)
				_ = os.Remove(folder)
			}
		}
	}()
	for range 3000 {
		if err := store.Put(t.Context(), "folder/k", strings.NewReader("x"), 1, object.Attrs{}); err != nil {
			t.Error(err)
			break
		}
		if err := store.Delete(t.Context(), "folder/k"); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	<-gone
}
