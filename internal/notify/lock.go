package notify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"myrmidon"
	"myrmidon/internal/filelock"
)

// locked is what names of files end with that say whose a folder of events is; they hold the
// webhook's address.
const locked = ".lock"

// lockFolder takes a folder by a file beside it, until that is closed or the process ends.
func lockFolder(dir, of string) (*os.File, error) {
	f, err := os.OpenFile(dir+locked, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = filelock.TakeFromLookers(f) // another process that starts may have a look, see LeftIn
	if errors.Is(err, filelock.ErrHeld) {
		err = myrmidon.WithHint(fmt.Errorf("%s: events of this webhook are taken by another process, or by another source of this one", dir),
			"end the other, give this one another address, or another --state folder")
	}
	if err == nil {
		if err = f.Truncate(0); err == nil {
			_, err = f.WriteAt([]byte(of), 0)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Left are events of a webhook that nobody follows.
type Left struct {
	Address string
	Events  int
}

// LeftIn returns which events wait in the folders of webhooks in dir, where nobody has them done
// now. What cannot be read is left out: it is for a message, not for a decision.
func LeftIn(dir string) (out []Left) {
	for _, file := range names(dir) {
		name, is := strings.CutSuffix(file, locked)
		if !is {
			continue
		}
		of, free := unfollowed(filepath.Join(dir, file))
		if !free {
			continue
		}
		n := 0
		for _, event := range names(filepath.Join(dir, name)) {
			if strings.HasSuffix(event, ".json") {
				n++
			}
		}
		if n > 0 {
			out = append(out, Left{of, n})
		}
	}
	return out
}

// names returns what is in a folder, if it can be read.
func names(dir string) (out []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// unfollowed returns what a lock is of, if nobody has it.
func unfollowed(lock string) (of string, ok bool) {
	f, err := os.Open(lock)
	if err != nil {
		return "", false
	}
	defer f.Close()
	if filelock.Share(f) != nil {
		return "", false
	}
	data, err := os.ReadFile(lock)
	return string(data), err == nil
}
