package transcode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"myrmidon"
	"myrmidon/internal/ffmpeg"
)

const hintDamaged = "fetch or export the file again; nothing was published"

// explain turns a shortfall into an error that says what is wrong with the file,
// and where. Damage is permanent: the same bytes decode the same way.
func (j *jobContext) explain(ctx context.Context, c Chunk, bad *shortfall) error {
	p := j.plan
	if bad.damaged == 0 {
		last := c.First+c.Frames == p.Frames
		if last && !p.Input.Resample && bad.frames < c.Frames {
			return myrmidon.Permanent(myrmidon.WithHint(
				fmt.Errorf("%s is cut off: only %d of its %d frames can be decoded",
					j.source(), c.First+bad.frames, p.Frames), hintDamaged))
		}
		return fmt.Errorf("%s: %s: %s of %d", j.source(), j.what(), bad, c.Frames)
	}
	missing, first, out, err := locate(ctx, j.w.cfg.Tools, p, j.media, c, j.dir)
	j.meter.add(out)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if j.media.Err() != nil {
		return err
	}
	if err == nil && missing > 0 {
		return p.damagedAt(missing, first)
	}
	if err != nil {
		// The decoder gave up when it was told not to mend. The chunk is all that is
		// known of the place.
		j.w.log.Debug("the damage could not be located", "source", j.source(), "error", err)
	}
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s is damaged between %s and %s: %s", j.source(),
		clock(p.seconds(c.First)), clock(p.seconds(c.First+c.Frames)), bad.complaint), hintDamaged))
}

// damagedAt is the error for frames that cannot be decoded.
func (p *Plan) damagedAt(missing, first int64) error {
	return myrmidon.Permanent(myrmidon.WithHint(
		fmt.Errorf("%s is damaged at about %s: %s could not be decoded",
			p.Source.Name, clock(math.Round(p.seconds(first))), count(missing, "frame")), hintDamaged))
}

// settle decides whether a file that ffprobe complained of can be used, by decoding
// all its pictures: parsers complain of little things, too, that harm nothing. It
// runs before anything is encoded in vain.
func settle(ctx context.Context, tools *ffmpeg.Tools, p *Plan, media *ffmpeg.Media, dir, complaint string, m *meter) error {
	missing, first, out, runErr := locate(ctx, tools, p, media, Chunk{Frames: p.Frames}, dir)
	m.add(out)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case media.Err() != nil:
		return runErr
	case runErr == nil && missing > 0:
		return p.damagedAt(missing, first)
	case runErr != nil || !p.Input.tolerates(out.Damaged):
		return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%s is damaged: %s", p.Source.Name, complaint), hintDamaged))
	}
	return nil
}

// locate decodes the chunk without mending and returns how many frames are missing,
// and the first of them.
func locate(ctx context.Context, tools *ffmpeg.Tools, p *Plan, media *ffmpeg.Media, c Chunk, dir string,
) (missing, first int64, out ffmpeg.Outcome, err error) {
	seen := make([]bool, c.Frames)
	lines := &frameLines{take: func(fields []string) {
		if len(fields) < 3 {
			return
		}
		pts, err := strconv.ParseInt(fields[2], 10, 64)
		if i := pts - c.First; err == nil && i >= 0 && i < c.Frames {
			seen[i] = true
		}
	}}
	c.Seek = nil
	out, err = tools.Run(ctx, ffmpeg.Command{
		Args: p.locateArgs(media, c), Media: media, Dir: dir, Stdout: lines, Limits: p.limits(0, 0),
	})
	if err != nil {
		return 0, 0, out, err
	}
	first = -1
	for i, ok := range seen {
		if !ok {
			missing++
			if first < 0 {
				first = c.First + int64(i)
			}
		}
	}
	return missing, first, out, nil
}

// frameLines takes what ffmpeg's framecrc writes, a line a frame: stream, DTS, PTS,
// duration, size, checksum. Its fields, without space around them, go to take.
type frameLines struct {
	line []byte
	take func(fields []string)
}

var errLongLine = errors.New("framecrc wrote a line of more than 4 KiB")

func (l *frameLines) Write(b []byte) (int, error) {
	n := len(b)
	for {
		part, rest, ended := bytes.Cut(b, []byte("\n"))
		if len(l.line)+len(part) > 4096 {
			return 0, errLongLine
		}
		l.line = append(l.line, part...)
		if !ended {
			return n, nil
		}
		if !bytes.HasPrefix(l.line, []byte("#")) { // a header
			fields := strings.Split(string(l.line), ",")
			for i := range fields {
				fields[i] = strings.TrimSpace(fields[i])
			}
			l.take(fields)
		}
		l.line, b = l.line[:0], rest
	}
}

// clock is a time for people: 0:07, 1:02:03.
func clock(seconds float64) string {
	s := int64(seconds)
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// count is a number with its noun: "1 frame", "2 frames".
func count(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
