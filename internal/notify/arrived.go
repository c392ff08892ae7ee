package notify

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"myrmidon/object"
)

// arrived is a folder whose objects are as new as their files are there. What copies a bucket into
// a folder (aws s3 sync, rsync -a) gives files the time of their source, which may be long before
// the time to which a follower has come; the time of a file's status cannot be set.
type arrived struct {
	object.Store
	pages object.Pager
	files object.Local
}

// Arrived returns a store for a listing that is followed: one that holds files on this machine
// says of each that it is as new as it came. Others stay as they are.
func Arrived(store object.Store) object.Store {
	pages, listed := store.(object.Pager)
	files, local := store.(object.Local)
	if !listed || !local {
		return store
	}
	return arrived{store, pages, files}
}

// Page implements [object.Pager].
func (a arrived) Page(ctx context.Context, prefix, after string, most int) ([]object.Info, bool, error) {
	page, more, err := a.pages.Page(ctx, prefix, after, most)
	for i := range page {
		var st unix.Stat_t
		path, noPath := a.files.Path(page[i].Key)
		if noPath != nil || unix.Stat(path, &st) != nil {
			continue // it is gone, and whoever reads it says so
		}
		if came := time.Unix(st.Ctim.Unix()).UTC(); came.After(page[i].Modified) {
			page[i].Modified = came
		}
	}
	return page, more, err
}
