package transcode

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"myrmidon/internal/ffmpeg"
	"myrmidon/object"
)

// itemResult is what encoding an item left in the store. It is written after all
// that it names, so where it is found the item is finished.
type itemResult struct {
	Version    int               `json:"version"` // planVersion
	ID         string            `json:"id"`      // Plan.ID
	Chunk      int               `json:"chunk"`
	Renditions []renditionResult `json:"renditions"`
}

// renditionResult is one rendition's part of an item.
type renditionResult struct {
	Name string `json:"name"`
	// Init is the init segment. It is kept here, and written once all chunks are
	// known to agree on it.
	Init     []byte          `json:"init"`
	Segments []segmentResult `json:"segments"`
}

// segmentResult describes one segment.
type segmentResult struct {
	Number   int    `json:"number"`
	Size     int64  `json:"size"`     // bytes
	Samples  int    `json:"samples"`  // frames, or packets of sound
	Start    uint64 `json:"start"`    // decode time of the first sample, ticks of its track
	Duration uint64 `json:"duration"` // ticks
	KeySize  int64  `json:"key_size"` // bytes from the segment's start to the end of its first sample
	SHA256   string `json:"sha256"`
}

// file is the segment's name in its rendition's folder.
func (s segmentResult) file() string { return fmt.Sprintf(segmentPattern, s.Number) }

// samples adds up a rendition's frames.
func (r *renditionResult) samples() int64 {
	var n int64
	for _, s := range r.Segments {
		n += int64(s.Samples)
	}
	return n
}

func (r *itemResult) bytes() int64 {
	var n int64
	for i := range r.Renditions {
		for _, s := range r.Renditions[i].Segments {
			n += s.Size
		}
	}
	return n
}

// segmentWriter stores the segments of one rendition of a job, some side by side.
type segmentWriter struct {
	j         *jobContext
	rendition string
	puts      *errgroup.Group
	ctx       context.Context // of puts: it ends with their first error
}

func (j *jobContext) segmentWriter(ctx context.Context, rendition string) *segmentWriter {
	w := &segmentWriter{j: j, rendition: rendition}
	w.puts, w.ctx = errgroup.WithContext(ctx)
	w.puts.SetLimit(sideBySide)
	return w
}

// wait ends the writing. It returns the error of a put, else err.
func (w *segmentWriter) wait(err error) error {
	if putErr := w.puts.Wait(); putErr != nil {
		return putErr
	}
	return err
}

// put checks a fragment and stores it as segment number, at the latest when wait
// returns.
func (w *segmentWriter) put(init ffmpeg.Init, number int, f *ffmpeg.Fragment) (segmentResult, error) {
	var b bytes.Buffer
	if _, err := ffmpeg.WriteSegment(&b, f); err != nil {
		return segmentResult{}, fmt.Errorf("segment %d: %w", number, err)
	}
	info, err := ffmpeg.CheckSegment(init, b.Bytes())
	if err != nil {
		return segmentResult{}, fmt.Errorf("segment %d: %w", number, err)
	}
	sum := sha256.Sum256(b.Bytes())
	seg := segmentResult{
		Number:   number,
		Size:     int64(b.Len()),
		Samples:  info.Frames,
		Start:    info.BaseTime,
		Duration: info.Duration,
		KeySize:  info.FirstOffset + info.FirstSize,
		SHA256:   hex.EncodeToString(sum[:]),
	}
	key := w.j.plan.mediaKey(w.j.task.Name, w.rendition, seg.file())
	w.puts.Go(func() error { return w.j.store.put(w.ctx, key, b.Bytes(), cacheForever) })
	return seg, w.ctx.Err()
}

// finished returns the result that an earlier attempt or run has left, if it is
// whole: it parses, is of this plan, and all that it names is there.
func finished(ctx context.Context, s *meteredStore, p *Plan, name string, chunk int) (*itemResult, error) {
	r := new(itemResult)
	err := s.getJSON(ctx, p.resultKey(name, chunk), r)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil, r.Version != planVersion, r.ID != p.ID, r.Chunk != chunk:
		return nil, nil // it cannot be used; it is made again, and replaced
	}
	var keys []string
	var sizes []int64
	for i := range r.Renditions {
		for _, seg := range r.Renditions[i].Segments {
			keys = append(keys, p.mediaKey(name, r.Renditions[i].Name, seg.file()))
			sizes = append(sizes, seg.Size)
		}
	}
	err = inOrder(ctx, len(keys),
		func(ctx context.Context, i int) (object.Info, error) { return s.Head(ctx, keys[i]) },
		func(i int, info object.Info) error {
			if info.Size != sizes[i] {
				return fs.ErrNotExist // as good as gone
			}
			return nil
		})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return r, nil
}
