package transcode

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"myrmidon"
	"myrmidon/internal/ffmpeg"
)

// badOutput is an error in what was encoded, as opposed to one of reading it back.
type badOutput struct{ err error }

func (b *badOutput) Error() string { return b.err.Error() }
func (b *badOutput) Unwrap() error { return b.err }

// verify reads back what an item of the encode phase left and checks all of it.
// If that is not what it should be, the item's result is removed, so that the next
// attempt to encode finds it unfinished.
func (w *worker) verify(ctx context.Context, job myrmidon.Job) (myrmidon.Result, error) {
	j, err := w.open(ctx, job)
	if err != nil {
		return j.result(job, nil), err
	}
	r := new(itemResult)
	key := j.plan.resultKey(j.task.Name, j.task.Chunk)
	if err := j.store.getJSON(ctx, key, r); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = myrmidon.Permanent(myrmidon.WithHint(err, "start the run again: what it had made is gone"))
		}
		return j.result(job, nil), fmt.Errorf("transcode: read the result of %s: %w", j.what(), err)
	}
	err = w.inTempDir(job, func(dir string) error {
		j.dir = dir
		return j.verifyItem(ctx, r)
	})
	var bad *badOutput
	if errors.As(err, &bad) && ctx.Err() == nil {
		err = myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s: verify %s: %w", j.source(), j.what(), err),
			"start the run again: it encodes this part anew and keeps the others"))
		if deleteErr := j.store.Delete(ctx, key); deleteErr != nil {
			err = errors.Join(err, deleteErr)
		}
	}
	if err != nil {
		return j.result(job, nil), err
	}
	return j.result(job, r), nil
}

func (j *jobContext) verifyItem(ctx context.Context, r *itemResult) error {
	p := j.plan
	want := 1
	if j.task.Chunk != audioItem {
		want = len(p.Renditions)
	}
	if r.ID != p.ID || len(r.Renditions) != want {
		return &badOutput{fmt.Errorf("the result is of another plan, or of %d renditions instead of %d", len(r.Renditions), want)}
	}
	for i := range r.Renditions {
		name := audioFolder
		if j.task.Chunk != audioItem {
			name = p.Renditions[i].Name
		}
		if r.Renditions[i].Name != name {
			return &badOutput{fmt.Errorf("rendition %d is %q, not %q", i, r.Renditions[i].Name, name)}
		}
		if err := j.verifyRendition(ctx, &r.Renditions[i]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return j.verifyByDecoding(ctx, r)
}

// verifyRendition checks every segment as it lies in the store: bytes, boxes, sample
// tables, and that each begins when the one before it has ended. It leaves the
// rendition in the job's folder, for the decoder.
func (j *jobContext) verifyRendition(ctx context.Context, r *renditionResult) (err error) {
	p := j.plan
	if len(r.Segments) == 0 && j.task.Chunk == audioItem {
		return nil // an audio stream without a packet
	}
	init, err := ffmpeg.ParseInit(r.Init)
	if err != nil {
		return &badOutput{err}
	}
	file, err := os.Create(filepath.Join(j.dir, outputFile(r.Name)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.Write(r.Init); err != nil {
		return err
	}
	var number int
	var at uint64
	if j.task.Chunk != audioItem {
		c := p.Chunks[j.task.Chunk]
		number, at = c.FirstSegment, uint64(c.First*p.FrameTicks)
	}
	read := func(ctx context.Context, i int) ([]byte, error) {
		b, err := j.store.get(ctx, p.mediaKey(j.task.Name, r.Name, r.Segments[i].file()))
		if errors.Is(err, fs.ErrNotExist) {
			err = &badOutput{err}
		}
		return b, err
	}
	err = inOrder(ctx, len(r.Segments), read, func(i int, b []byte) error {
		seg := r.Segments[i]
		if seg.Number != number {
			return &badOutput{fmt.Errorf("segment %d where %d is due", seg.Number, number)}
		}
		if err := checkSegment(init, seg, b, at); err != nil {
			return &badOutput{fmt.Errorf("%s: %w", seg.file(), err)}
		}
		if _, err := file.Write(b); err != nil {
			return err
		}
		number++
		at += seg.Duration
		return nil
	})
	if err != nil || j.task.Chunk == audioItem {
		return err
	}
	c := p.Chunks[j.task.Chunk]
	if got := r.samples(); got != c.Frames {
		return &badOutput{fmt.Errorf("%d frames, not %d", got, c.Frames)}
	}
	if end := uint64((c.First + c.Frames) * p.FrameTicks); at != end {
		return &badOutput{fmt.Errorf("it ends at %d ticks, not %d", at, end)}
	}
	return nil
}

// checkSegment checks the bytes of one segment against what was noted when it was
// made, and against the time at which it is due.
func checkSegment(init ffmpeg.Init, seg segmentResult, b []byte, due uint64) error {
	sum := sha256.Sum256(b)
	if int64(len(b)) != seg.Size || hex.EncodeToString(sum[:]) != seg.SHA256 {
		return errors.New("the bytes in the store are not those that were written")
	}
	info, err := ffmpeg.CheckSegment(init, b)
	switch {
	case err != nil:
		return err
	case info.Frames != seg.Samples || info.Duration != seg.Duration:
		return fmt.Errorf("it holds %d samples of %d ticks, not %d of %d", info.Frames, info.Duration, seg.Samples, seg.Duration)
	case info.BaseTime != due:
		return fmt.Errorf("it begins at %d ticks, not %d", info.BaseTime, due)
	case init.Handler == "vide" && info.FirstPTS != int64(due)+init.MediaTime:
		return fmt.Errorf("its first picture is shown at %d ticks, not %d", info.FirstPTS-init.MediaTime, due)
	case info.Sequence != uint32(seg.Number)+1:
		return fmt.Errorf("its sequence number is %d, not %d", info.Sequence, seg.Number+1)
	}
	return nil
}

// verifyByDecoding decodes one keyframe a segment, or everything, in one process for
// the whole item, since a start of ffmpeg costs more than a keyframe. Sound is decoded
// only if everything is.
func (j *jobContext) verifyByDecoding(ctx context.Context, r *itemResult) error {
	whole := j.task.Verify == VerifyDecode
	sound := j.task.Chunk == audioItem
	if sound && (!whole || len(r.Renditions[0].Segments) == 0) {
		return nil
	}
	mov := ffmpeg.Container{Name: "mov", Indexed: true}
	var args, maps []string
	want := make([]int64, len(r.Renditions))
	for i := range r.Renditions {
		rendition := &r.Renditions[i]
		want[i] = int64(len(rendition.Segments))
		if whole {
			want[i] = rendition.samples()
		} else {
			args = append(args, "-skip_frame", "nokey")
		}
		args = append(args, "-threads", "1")
		args = append(args, mov.Input(filepath.Join(j.dir, outputFile(rendition.Name)))...)
		maps = append(maps, "-map", strconv.Itoa(i))
	}
	// A decoded picture is handed on as a reference, not copied: one line is printed
	// for it and nothing is written.
	args = append(args, maps...)
	args = append(args, "-fps_mode", "passthrough")
	if sound {
		args = append(args, "-c:a", "pcm_s16le")
	} else {
		args = append(args, "-c:v", "wrapped_avframe")
	}
	args = append(args, "-f", "framecrc", "pipe:1")
	counts := make([]int64, len(want))
	lines := &frameLines{take: func(fields []string) {
		if i, err := strconv.Atoi(fields[0]); err == nil && i >= 0 && i < len(counts) {
			counts[i]++
		}
	}}
	out, err := j.w.cfg.Tools.Run(ctx, ffmpeg.Command{
		Args: args, Dir: j.dir, Stdout: lines, Limits: j.plan.limits(0, 0),
	})
	j.meter.add(out)
	if err != nil {
		return fmt.Errorf("decode what was encoded: %w", err)
	}
	if out.Damaged > 0 {
		return &badOutput{fmt.Errorf("the decoder complains: %s", out.Damage[0])}
	}
	for i, n := range want {
		name := r.Renditions[i].Name
		if sound {
			// The decoder drops the encoder's priming: one packet of it, or two.
			if got := counts[i]; got > n || got < n-2 {
				return &badOutput{fmt.Errorf("%s: %d of %d packets decode", name, got, n)}
			}
			continue
		}
		if counts[i] != n {
			return &badOutput{fmt.Errorf("%s: %d of %d frames decode", name, counts[i], n)}
		}
	}
	return nil
}
