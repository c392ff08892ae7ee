package engine

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// What a run of a fleet leaves, its report and its evidence, lies on the broker in pages
// that fit its messages.

// pages are values of any size under one prefix, in pages that fit a blob, the head last.
type pagesHead struct {
	Pages int `json:"pages"`
}

func setPages(ctx context.Context, b Blobs, prefix string, data []byte) error {
	n := 0
	for page := range slices.Chunk(data, maxBlob) {
		if err := b.Set(ctx, fmt.Sprintf("%s%d", prefix, n), page); err != nil {
			return err
		}
		n++
	}
	head, err := json.Marshal(pagesHead{n})
	if err != nil {
		return err
	}
	return b.Set(ctx, prefix+"head", head)
}

func pagesOf(ctx context.Context, b Blobs, prefix string) ([]byte, error) {
	data, err := b.Value(ctx, prefix+"head")
	if err != nil {
		return nil, err
	}
	var head pagesHead
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("engine: %shead: %w", prefix, err)
	}
	var out []byte
	for i := range head.Pages {
		page, err := b.Value(ctx, fmt.Sprintf("%s%d", prefix, i))
		if err != nil {
			return nil, err
		}
		out = append(out, page...)
	}
	return out, nil
}

func (r *FleetRun) saveReport(rep *Report) error {
	data, err := json.Marshal(rep)
	if err != nil {
		return fmt.Errorf("engine: report of run %s: %w", r.ID, err)
	}
	return setPages(context.Background(), r.fleet, reportPrefix(r.ID), data)
}

// Report implements Home.
func (r *FleetRun) Report() (*Report, error) {
	data, err := pagesOf(context.Background(), r.fleet, reportPrefix(r.ID))
	if err != nil {
		return nil, fmt.Errorf("report of run %s: %w", r.ID, err)
	}
	rep := new(Report)
	if err := json.Unmarshal(data, rep); err != nil {
		return nil, fmt.Errorf("report of run %s: %w", r.ID, err)
	}
	return rep, nil
}

// fleetItems writes evidence as compressed pages, each of which can be read by itself.
type fleetItems struct {
	r    *FleetRun
	n    int64 // pages stored
	page bytes.Buffer
	zip  *gzip.Writer
}

// itemsPage is when a page is full: compressed output may still grow by what the
// compressor holds back.
const itemsPage = maxBlob * 3 / 4

func (r *FleetRun) newItems(size int64) (itemsWriter, error) {
	return &fleetItems{r: r, n: size}, nil
}

func (f *fleetItems) Write(p []byte) (int, error) {
	// A write may end within a line; pages are concatenated when they are read.
	for at := 0; at < len(p); {
		if f.zip == nil {
			f.page.Reset()
			f.zip = gzip.NewWriter(&f.page)
		}
		n, err := f.zip.Write(p[at:min(at+64<<10, len(p))])
		at += n
		if err != nil {
			return at, err
		}
		if f.page.Len() > itemsPage {
			if err := f.flush(); err != nil {
				return at, err
			}
		}
	}
	return len(p), nil
}

func (f *fleetItems) flush() error {
	if f.zip == nil {
		return nil
	}
	if err := f.zip.Close(); err != nil {
		return err
	}
	f.zip = nil
	if err := f.r.fleet.Set(context.Background(), fmt.Sprintf("%s%d", itemsPrefix(f.r.ID), f.n), f.page.Bytes()); err != nil {
		return err
	}
	f.n++
	return nil
}

func (f *fleetItems) finish() (int64, error) {
	if err := f.flush(); err != nil {
		return 0, err
	}
	head, err := json.Marshal(pagesHead{int(f.n)})
	if err != nil {
		return 0, err
	}
	// An owner that was stopped until now must not replace what its successor wrote.
	if err := f.r.confirm(); err != nil {
		return 0, err
	}
	return f.n, f.r.fleet.Set(context.Background(), itemsPrefix(f.r.ID)+"head", head)
}

func (f *fleetItems) abort() {} // pages behind the head's number are replaced by the next writer

// OpenItems implements Home.
func (r *FleetRun) OpenItems() (io.ReadCloser, error) {
	ctx := context.Background()
	data, err := r.fleet.Value(ctx, itemsPrefix(r.ID)+"head")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("items of run %s: %w", r.ID, os.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	var head pagesHead
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("items of run %s: %w", r.ID, err)
	}
	out, in := io.Pipe()
	go func() {
		for i := range head.Pages {
			page, err := r.fleet.Value(ctx, fmt.Sprintf("%s%d", itemsPrefix(r.ID), i))
			if err == nil {
				var unzip *gzip.Reader
				if unzip, err = gzip.NewReader(bytes.NewReader(page)); err == nil {
					_, err = io.Copy(in, unzip)
				}
			}
			if err != nil {
				in.CloseWithError(err)
				return
			}
		}
		in.Close()
	}()
	return out, nil
}
