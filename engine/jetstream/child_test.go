package jetstream_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"myrmidon/engine/jetstream"
)

// childVar and folderVar make this test binary the child that tests start.
const (
	childVar  = "MYRMIDON_TEST_CHILD"
	folderVar = "MYRMIDON_TEST_FOLDER"
)

// children are what a child does with its folder; they return its exit status.
var children = map[string]func(dir string) int{
	"full": fullDisk,
	"open": func(dir string) int {
		b, err := jetstream.Open(context.Background(), jetstream.Config{Dir: dir})
		if err != nil {
			fmt.Println(err)
			return 0
		}
		fmt.Println("opened")
		if err := b.Close(); err != nil {
			fmt.Println(err)
			return 1
		}
		return 0
	},
}

func TestMain(m *testing.M) {
	if do := children[os.Getenv(childVar)]; do != nil {
		time.AfterFunc(time.Minute, func() { panic("a child took too long") })
		os.Exit(do(os.Getenv(folderVar)))
	}
	os.Exit(m.Run())
}

// inChild is this program as the named child.
func inChild(t *testing.T, name, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVar+"="+name, folderVar+"="+dir)
	return cmd
}
