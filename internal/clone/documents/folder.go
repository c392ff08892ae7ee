package documents

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"myrmidon/object"
)

// maxDocument bounds what is read of a document: a page of 4,000 segments has a megabyte.
const maxDocument = 32 << 20

// Folder holds the documents of one clone. Its methods may be called from many goroutines;
// their errors wrap [fs.ErrNotExist] for what is not there, and are an [*Error] for what is
// not as it should be.
type Folder struct {
	Store object.Store
	Path  string // in the store, without a "/" at its end
}

func (f Folder) key(name string) string {
	if f.Path == "" {
		return name
	}
	return f.Path + "/" + name
}

func (f Folder) read(ctx context.Context, key string) (data []byte, err error) {
	r, info, err := f.Store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := r.Close(); err == nil {
			err = closeErr
		}
	}()
	if info.Size > maxDocument {
		return nil, &Error{key, "", fmt.Sprintf("has %d bytes: no document is that long", info.Size)}
	}
	return io.ReadAll(r)
}

func get[T any](ctx context.Context, f Folder, key string) (v T, err error) {
	data, err := f.read(ctx, key)
	if err != nil {
		return v, err
	}
	return v, decode(key, data, &v)
}

func (f Folder) put(ctx context.Context, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return f.Store.Put(ctx, key, bytes.NewReader(data), int64(len(data)), object.Attrs{ContentType: "application/json"})
}

// RequestKey is where the clone-request lies.
func (f Folder) RequestKey() string { return f.key(cloneRequest) }

// Request reads the clone-request.
func (f Folder) Request(ctx context.Context) (Request, error) {
	data, err := f.read(ctx, f.RequestKey())
	if err != nil {
		return Request{}, err
	}
	return readRequest(f.RequestKey(), data)
}

// PutRequest writes the clone-request.
func (f Folder) PutRequest(ctx context.Context, r Request) error {
	if err := r.check(f.RequestKey()); err != nil {
		return err
	}
	return f.put(ctx, f.RequestKey(), r)
}

// Response reads the clone-response.
func (f Folder) Response(ctx context.Context) (Response, error) {
	return get[Response](ctx, f, f.key(cloneResponse))
}

// PutResponse writes the clone-response.
func (f Folder) PutResponse(ctx context.Context, r Response) error {
	return f.put(ctx, f.key(cloneResponse), r)
}

// RequestOf returns the key of a segment's request.
func (f Folder) RequestOf(segment string) string { return f.key(segment + segmentRequest) }

// PutSegmentRequest writes the request of a segment.
func (f Folder) PutSegmentRequest(ctx context.Context, segment string, r SegmentRequest) error {
	return f.put(ctx, f.RequestOf(segment), r)
}

// SegmentResponse reads the response to the segment-request at key.
func (f Folder) SegmentResponse(ctx context.Context, key string) (SegmentResponse, error) {
	return get[SegmentResponse](ctx, f, ResponseKey(key))
}

// PutSegmentResponse answers a segment: what there was to copy is done.
func (f Folder) PutSegmentResponse(ctx context.Context, segment string, r SegmentResponse) error {
	if r.Files == nil {
		r.Files = []Key{}
	}
	return f.put(ctx, f.key(segment+segmentResponse), r)
}

// PutPartial keeps what is known of a segment of which some objects are tried again.
func (f Folder) PutPartial(ctx context.Context, segment string, r SegmentResponse) error {
	return f.put(ctx, f.key(segment+segmentPartial), r)
}

// RemovePartial forgets what PutPartial kept, if anything.
func (f Folder) RemovePartial(ctx context.Context, segment string) error {
	return f.Store.Delete(ctx, f.key(segment+segmentPartial))
}

// Earlier returns what an earlier attempt at a segment, or one before a retry, has left in
// the same run: a zero response if nothing.
func (f Folder) Earlier(ctx context.Context, segment, run string) (SegmentResponse, error) {
	for _, suffix := range []string{segmentPartial, segmentResponse} {
		r, err := get[SegmentResponse](ctx, f, f.key(segment+suffix))
		if err == nil && r.Run == run {
			return r, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return SegmentResponse{}, err
		}
	}
	return SegmentResponse{}, nil
}

// Segments returns the keys of all segment-requests that a manifest names, itself and in its
// pages, in its order.
func (f Folder) Segments(ctx context.Context, r Response) ([]string, error) {
	parts := make([][]string, len(r.Segments.Pages))
	if err := f.eachPage(ctx, r.Segments.Pages, func(i int, values []string) { parts[i] = values }); err != nil {
		return nil, err
	}
	all := slices.Concat(append([][]string{r.Segments.Values}, parts...)...)
	if len(all) != r.Segments.Count {
		return nil, &Error{f.key(cloneResponse), "segments.count", fmt.Sprintf("is %d, and %d segments are listed", r.Segments.Count, len(all))}
	}
	for _, key := range all {
		if ResponseKey(key) == "" {
			return nil, &Error{f.key(cloneResponse), "segments.values", fmt.Sprintf("has %.100q, which is no key of a segment-request", key)}
		}
	}
	return all, nil
}

func (f Folder) eachPage(ctx context.Context, keys []string, visit func(i int, values []string)) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i, key := range keys {
		group.Go(func() error {
			p, err := get[page](ctx, f, key)
			if err == nil {
				visit(i, p.Values)
			}
			return err
		})
	}
	return group.Wait()
}

// A plan is made by many, shard by shard. What each has found lies below
// clone-response-pages/{run}/{shard}/ until all are done, and is then the manifest's pages:
//
//	open        written by the shard that opens this one, before anybody plans it
//	p{page}     the segments of one slice
//	sealed      nothing follows
//
// So whoever seals the last shard sees that it was the last.

func (f Folder) shardKey(run string, shard uint32, name string) string {
	return f.key(fmt.Sprintf("%s/%s/%08x/%s", pagesFolder, run, shard, name))
}

// PutPage writes down the segments of a slice of a shard's plan, which begins at page number.
func (f Folder) PutPage(ctx context.Context, run string, shard uint32, number int, segments []string) error {
	keys := make([]string, len(segments))
	for i, s := range segments {
		keys[i] = f.RequestOf(s)
	}
	return f.put(ctx, f.shardKey(run, shard, fmt.Sprintf("p%08x", number)), page{keys})
}

// PutOpen writes down that a shard will be planned.
func (f Folder) PutOpen(ctx context.Context, run string, shard uint32) error {
	return f.put(ctx, f.shardKey(run, shard, "open"), struct{}{})
}

// PutSealed writes down that a shard has been planned.
func (f Folder) PutSealed(ctx context.Context, run string, shard uint32) error {
	return f.put(ctx, f.shardKey(run, shard, "sealed"), struct{}{})
}

// Planned puts together what has been planned of a run, and reports whether that is all. If
// it must be all and is not, there are no segments, and no page was read.
func (f Folder) Planned(ctx context.Context, run string, must bool) (s Segments, all bool, err error) {
	prefix := f.key(pagesFolder + "/" + run + "/")
	var pages []string
	all = true
	shard, sealed := "00000000", false // the first is opened by nobody
	for info, err := range f.Store.List(ctx, prefix, "") {
		if err != nil {
			return s, false, err
		}
		at, name, _ := strings.Cut(info.Key[len(prefix):], "/")
		if at != shard {
			all = all && sealed
			shard, sealed = at, false
			if must && !all {
				return s, false, nil
			}
		}
		switch {
		case name == "sealed":
			sealed = true
		case strings.HasPrefix(name, "p"):
			pages = append(pages, info.Key)
		}
	}
	if all = all && sealed; must && !all {
		return s, false, nil
	}
	parts := make([][]string, len(pages))
	if err := f.eachPage(ctx, pages, func(i int, values []string) { parts[i] = values }); err != nil {
		return s, false, err
	}
	for _, p := range parts {
		s.Count += len(p)
	}
	if s.Count > MaxInline {
		s.Pages = pages
		return s, all, nil
	}
	s.Values = append([]string{}, slices.Concat(parts...)...) // [] in JSON, also where there is none
	return s, all, nil
}

// Found is a folder with a clone-request.
type Found struct {
	Folder   string // its path in the store
	Answered bool   // there is a clone-response
}

// beyond is greater than what follows a folder's "/" in keys that are text.
const beyond = "\U0010ffff"

// Find calls fn for each folder at the top of a store that has a clone-request. It passes
// over what else a folder holds, with at most three requests.
func Find(ctx context.Context, store object.Pager, fn func(Found) error) error {
	var at Found
	has := false
	tell := func() error {
		if !has {
			return nil
		}
		has = false
		return fn(at)
	}
	for after, more := "", true; more; {
		var infos []object.Info
		var err error
		if infos, more, err = store.Page(ctx, "", after, 0); err != nil {
			return err
		}
		if err := object.CheckPage("", after, infos); err != nil {
			return err
		}
		for _, o := range infos {
			after = o.Key
			folder, name, _ := strings.Cut(o.Key, "/")
			if folder != at.Folder {
				if err := tell(); err != nil {
					return err
				}
				at = Found{Folder: folder}
			}
			switch name {
			case cloneRequest:
				has = true
			case cloneResponse:
				at.Answered = true
			}
		}
		folder, name, in := strings.Cut(after, "/")
		switch {
		case !in || len(infos) == 0:
		case name < "clone-":
			after = folder + "/clone-" // where the two would be
		case name >= cloneResponse:
			after = max(after, folder+"/"+beyond)
		}
	}
	return tell()
}
