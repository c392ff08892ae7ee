package transcode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"myrmidon"
	"myrmidon/internal/ffmpeg"
)

// Bounds of one ffmpeg process. They are far above what honest work takes, and
// there to end what a hostile file makes of it.
const (
	memoryLimit  = 8 << 30 // bytes; an 8K picture and x264's lookahead take about 4 GiB
	openLimit    = 256     // files
	cpuFactor    = 20      // times the estimate of the whole run
	leastCPU     = 10 * time.Minute
	fileOverhead = 64 << 20 // bytes above what the rate control allows
)

// limits bounds a process that writes files of so many seconds at kbit/s.
func (p *Plan) limits(seconds float64, kbits int) ffmpeg.Limits {
	return ffmpeg.Limits{
		Memory:    memoryLimit,
		OpenFiles: openLimit,
		CPU:       leastCPU + time.Duration(p.CPU*cpuFactor*float64(time.Second)),
		FileSize:  int64(seconds*float64(kbits)*1000/8)*4 + fileOverhead,
	}
}

// encode makes one chunk at every size.
func (w *worker) encode(ctx context.Context, job myrmidon.Job) (myrmidon.Result, error) {
	return w.item(ctx, job, func(ctx context.Context, j *jobContext) (*itemResult, error) {
		return j.encodeChunk(ctx, j.plan.Chunks[j.task.Chunk])
	})
}

// item is what encoding pictures and sound have in common: nothing to do if there is
// a result, else the work in a folder of its own, then the result.
func (w *worker) item(ctx context.Context, job myrmidon.Job,
	make func(context.Context, *jobContext) (*itemResult, error),
) (myrmidon.Result, error) {
	j, err := w.open(ctx, job)
	if err != nil {
		return j.result(job, nil), err
	}
	if !j.task.Force {
		found, err := finished(ctx, j.store, j.plan, j.task.Name, j.task.Chunk)
		if err != nil {
			return j.result(job, nil), fmt.Errorf("transcode: look for a finished %s: %w", j.what(), err)
		}
		if found != nil {
			w.log.Debug("already finished", "run", job.Run, "item", j.what())
			return j.result(job, found), nil
		}
	}
	err = j.withSource(ctx, job, make)
	return j.result(job, j.made), err
}

// withSource does the work of an item: from the source, as it was planned, to the stored
// result.
func (j *jobContext) withSource(ctx context.Context, job myrmidon.Job,
	make func(context.Context, *jobContext) (*itemResult, error),
) (err error) {
	src, err := j.w.cfg.find(ctx, j.task.Source)
	if err != nil {
		return err
	}
	if err := src.check(j.task.Origin); err != nil {
		return err
	}
	if j.media, err = src.open(ctx); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, j.media.Close())
		j.meter.Read += src.taken.Load()
	}()
	return j.w.inTempDir(job, func(dir string) error {
		j.dir = dir
		made, err := make(ctx, j)
		if err != nil {
			return err
		}
		made.Version, made.ID, made.Chunk = planVersion, j.plan.ID, j.task.Chunk
		if err := j.store.putJSON(ctx, j.plan.resultKey(j.task.Name, j.task.Chunk), made); err != nil {
			return fmt.Errorf("transcode: store the result of %s: %w", j.what(), err)
		}
		j.made = made
		return nil
	})
}

// tempDir makes private folders below base ("" is the system's) that name their run, so
// that whoever takes the run up can remove what a killed process left.
type tempDir struct{ base, run string }

func (t tempDir) make() (string, error) {
	dir, err := os.MkdirTemp(t.base, "myrmidon-"+filepath.Base(t.run)+"-*")
	if err != nil {
		return "", myrmidon.WithHint(fmt.Errorf("transcode: make a temporary folder: %w", err),
			"free space there, or point TMPDIR to another folder")
	}
	return dir, nil
}

// inTempDir calls use with a private folder that is removed afterwards.
func (w *worker) inTempDir(job myrmidon.Job, use func(dir string) error) (err error) {
	dir, err := tempDir{w.cfg.TempDir, job.Run}.make()
	if err != nil {
		return err
	}
	defer func() {
		if removeErr := os.RemoveAll(dir); removeErr != nil {
			err = errors.Join(err, fmt.Errorf("transcode: remove the temporary folder: %w", removeErr))
		}
	}()
	return use(dir)
}

// encodeChunk runs ffmpeg for a chunk and stores what came out, once the number of
// frames is right.
func (j *jobContext) encodeChunk(ctx context.Context, c Chunk) (*itemResult, error) {
	bad, err := j.runChunk(ctx, c)
	if err == nil && bad != nil && c.Seek != nil {
		// The index may lie about a keyframe, and a stream of intra refresh has none
		// that stands alone. Decoding from the file's start settles whether the file
		// or the seek was at fault.
		j.w.log.Info("reading from the start, since a seek gave other frames", "source", j.source(), "item", j.what(), "was", bad)
		c.Seek = nil
		bad, err = j.runChunk(ctx, c)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", j.source(), j.what(), err)
	}
	if bad != nil {
		return nil, j.explain(ctx, c, bad)
	}
	out := new(itemResult)
	for _, r := range j.plan.Renditions {
		made, err := j.storeRendition(ctx, c, r.Name)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %s: %w", j.source(), j.what(), r.Name, err)
		}
		out.Renditions = append(out.Renditions, *made)
	}
	return out, nil
}

// shortfall says in what way a chunk that ffmpeg was content with is not whole.
type shortfall struct {
	rendition string
	frames    int64 // that it holds
	complaint string
	damaged   int
}

func (s *shortfall) String() string {
	if s.rendition != "" {
		return fmt.Sprintf("%s has %d frames", s.rendition, s.frames)
	}
	return s.complaint
}

// runChunk encodes c into the job's folder. It returns what is wrong with the frames,
// if anything, and an error if ffmpeg failed.
func (j *jobContext) runChunk(ctx context.Context, c Chunk) (*shortfall, error) {
	p := j.plan
	most := 0
	for _, r := range p.Renditions {
		most = max(most, r.MaxRate+r.BufSize)
	}
	out, err := j.w.cfg.Tools.Run(ctx, ffmpeg.Command{
		Args:   append([]string{"-y"}, p.encodeArgs(j.media, c)...),
		Media:  j.media,
		Dir:    j.dir,
		Frames: c.Frames,
		Limits: p.limits(p.seconds(c.Frames), most),
	})
	j.meter.add(out)
	if err != nil {
		return nil, err
	}
	for _, r := range p.Renditions {
		var frames int64
		err := eachFragment(filepath.Join(j.dir, outputFile(r.Name)), func(_ []byte, f *ffmpeg.Fragment) error {
			frames += int64(len(f.Samples))
			return nil
		})
		if err != nil {
			return nil, err
		}
		if frames != c.Frames {
			s := &shortfall{rendition: r.Name, frames: frames, damaged: out.Damaged}
			if len(out.Damage) > 0 {
				s.complaint = out.Damage[0]
			}
			return s, nil
		}
	}
	if !p.Input.tolerates(out.Damaged) {
		return &shortfall{complaint: out.Damage[0], damaged: out.Damaged}, nil
	}
	return nil, nil
}

// storeRendition moves the chunk's fragments to their place in the stream and stores
// each as a segment.
func (j *jobContext) storeRendition(ctx context.Context, c Chunk, name string) (*renditionResult, error) {
	p := j.plan
	out := &renditionResult{Name: name}
	var init ffmpeg.Init
	next := c.First
	segments := j.segmentWriter(ctx, name)
	err := eachFragment(filepath.Join(j.dir, outputFile(name)), func(raw []byte, f *ffmpeg.Fragment) error {
		if out.Init == nil {
			var err error
			if init, err = ffmpeg.ParseInit(raw); err != nil {
				return err
			}
			if int64(init.Timescale) != p.Timescale || init.Delay != 0 {
				return fmt.Errorf("the init segment has a timescale of %d, not %d, or a delay (%d)",
					init.Timescale, p.Timescale, init.Delay)
			}
			out.Init = append([]byte(nil), raw...)
		}
		number := c.FirstSegment + len(out.Segments)
		want := min(p.SegmentFrames, c.First+c.Frames-next)
		if int64(len(f.Samples)) != want {
			return fmt.Errorf("segment %d has %d frames, not %d", number, len(f.Samples), want)
		}
		if int64(f.Samples[0].CTS) != init.MediaTime {
			return fmt.Errorf("segment %d begins %d ticks off the grid", number, int64(f.Samples[0].CTS)-init.MediaTime)
		}
		if err := f.Patch(uint32(number)+1, uint64(next*p.FrameTicks)); err != nil {
			return err
		}
		seg, err := segments.put(init, number, f)
		if err != nil {
			return err
		}
		if seg.Duration != uint64(want*p.FrameTicks) {
			return fmt.Errorf("segment %d lasts %d ticks, not %d", number, seg.Duration, want*p.FrameTicks)
		}
		next += want
		out.Segments = append(out.Segments, seg)
		return nil
	})
	if err := segments.wait(err); err != nil {
		return nil, err
	}
	if len(out.Segments) != c.Segments {
		return nil, fmt.Errorf("%d segments came out, not %d", len(out.Segments), c.Segments)
	}
	return out, nil
}
