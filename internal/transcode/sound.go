package transcode

import (
	"context"
	"fmt"
	"math"
	"path/filepath"

	"myrmidon"
	"myrmidon/internal/ffmpeg"
)

// longestTail is how much sound may follow the last boundary without becoming a
// segment of its own, seconds. The last packet of sound nearly always ends some
// milliseconds after the last picture.
const longestTail = 0.4

// sound makes the audio rendition, whole.
func (w *worker) sound(ctx context.Context, job myrmidon.Job) (myrmidon.Result, error) {
	return w.item(ctx, job, func(ctx context.Context, j *jobContext) (*itemResult, error) {
		made, err := j.encodeSound(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: sound: %w", j.source(), err)
		}
		return &itemResult{Renditions: []renditionResult{*made}}, nil
	})
}

func (j *jobContext) encodeSound(ctx context.Context) (*renditionResult, error) {
	p := j.plan
	out, err := j.w.cfg.Tools.Run(ctx, ffmpeg.Command{
		Args:   append([]string{"-y"}, p.audioArgs(j.media)...),
		Media:  j.media,
		Dir:    j.dir,
		Limits: p.limits(p.Duration()+3600, p.Audio.Bitrate),
	})
	j.meter.add(out)
	if err != nil && (out.Damaged == 0 || ctx.Err() != nil || j.media.Err() != nil || myrmidon.IsPermanent(err)) {
		return nil, err
	}
	if out.Damaged > 0 { // also where ffmpeg gave up because nearly all of it is
		return nil, myrmidon.Permanent(myrmidon.WithHint(
			fmt.Errorf("it is damaged: %s (%s)", out.Damage[0], count(int64(out.Damaged), "complaint")), hintDamaged))
	}
	cut := &soundCutter{j: j, out: &renditionResult{Name: audioFolder}, segments: j.segmentWriter(ctx, audioFolder)}
	err = eachFragment(filepath.Join(j.dir, outputFile(audioFolder)), cut.take)
	if err == nil && len(cut.samples) > 0 {
		err = cut.flush(len(cut.samples))
	}
	if err := cut.segments.wait(err); err != nil {
		return nil, err
	}
	return cut.out, nil
}

// soundCutter cuts a stream of packets where the pictures' segments end, each time at
// the packet boundary nearest to it. The boundaries are reckoned from the
// beginning, so that no error adds up. No packet is lost or comes twice. Sound that
// goes on after the last picture is kept, in further segments of the same length.
type soundCutter struct {
	j        *jobContext
	out      *renditionResult
	segments *segmentWriter
	init     ffmpeg.Init
	samples  []ffmpeg.Sample // not yet in a segment
	data     []byte          // theirs
	start    uint64          // decode time of the first of them, ticks
	packet   uint64          // ticks a packet
}

// take adds a fragment, and writes what segments are complete.
func (c *soundCutter) take(raw []byte, f *ffmpeg.Fragment) error {
	if c.out.Init == nil {
		var err error
		if c.init, err = ffmpeg.ParseInit(raw); err != nil {
			return err
		}
		if c.init.Handler != "soun" || c.init.Timescale == 0 || c.init.Delay != 0 {
			return fmt.Errorf("the init segment is of %q with %d ticks a second and a delay of %d",
				c.init.Handler, c.init.Timescale, c.init.Delay)
		}
		c.out.Init = append([]byte(nil), raw...)
		c.packet = uint64(max(f.Samples[0].Duration, 1))
	}
	c.samples = append(c.samples, f.Samples...)
	c.data = append(c.data, f.Data()...)
	tail := int(math.Ceil(longestTail * float64(c.init.Timescale) / float64(c.packet)))
	for {
		n := c.untilBoundary()
		if len(c.samples) <= n+tail {
			return nil
		}
		if err := c.flush(n); err != nil {
			return err
		}
	}
}

// untilBoundary is how many packets belong into the segment that is being filled.
func (c *soundCutter) untilBoundary() int {
	p := c.j.plan
	frames := int64(len(c.out.Segments)+1) * p.SegmentFrames
	// Media time 0 is the encoder's priming; pictures begin after it.
	end := rescale(frames, ffmpeg.Rational{Num: p.Rate.Den, Den: p.Rate.Num},
		ffmpeg.Rational{Num: 1, Den: int64(c.init.Timescale)}) + c.init.MediaTime
	packets := (2*end/int64(c.packet) + 1) / 2 // nearest
	return max(1, int(packets-int64(c.start/c.packet)))
}

// flush writes a segment of the first n packets.
func (c *soundCutter) flush(n int) error {
	size := 0
	for _, s := range c.samples[:n] {
		size += int(s.Size)
	}
	number := len(c.out.Segments)
	f, err := ffmpeg.BuildFragment(uint32(number)+1, c.init.TrackID, c.start, c.samples[:n], c.data[:size])
	if err != nil {
		return fmt.Errorf("segment %d: %w", number, err)
	}
	seg, err := c.segments.put(c.init, number, &f)
	if err != nil {
		return err
	}
	c.out.Segments = append(c.out.Segments, seg)
	c.start += seg.Duration
	c.samples = append(c.samples[:0], c.samples[n:]...)
	c.data = append(c.data[:0], c.data[size:]...)
	return nil
}
