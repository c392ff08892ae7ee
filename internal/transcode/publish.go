package transcode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"time"

	"myrmidon"
	"myrmidon/hls"
	"myrmidon/internal/ffmpeg"
)

// Output is what a run adds to its report when it has published.
type Output struct {
	Master        string            `json:"master"` // key of the multivariant playlist
	Version       string            `json:"version"`
	Renditions    []RenditionOutput `json:"renditions"` // largest first; the sound last
	Segments      int               `json:"segments"`   // of pictures, all renditions
	AudioSegments int               `json:"audio_segments,omitempty"`
	Bytes         int64             `json:"bytes"`    // of all segments and init segments
	Frames        int64             `json:"frames"`   // of each rendition
	Verified      int64             `json:"verified"` // frames that were found in every rendition
	Verify        string            `json:"verify"`   // how: VerifyQuick or VerifyDecode
	Duration      float64           `json:"duration"` // seconds, of the pictures
}

// RenditionOutput describes one rendition.
type RenditionOutput struct {
	Name             string `json:"name"`
	Width            int    `json:"width,omitempty"`
	Height           int    `json:"height,omitempty"`
	Codecs           string `json:"codecs"`            // with the sound's, as players see them
	Bandwidth        int64  `json:"bandwidth"`         // bits a second at the peak, sound included
	AverageBandwidth int64  `json:"average_bandwidth"` // sound included
	Segments         int    `json:"segments"`
	Bytes            int64  `json:"bytes"`
	Frames           int64  `json:"frames,omitempty"`
}

// stream is a rendition put together from all chunks.
type stream struct {
	name     string
	raw      []byte // init segment
	init     ffmpeg.Init
	segments []segmentResult
}

func (s *stream) bytes() int64 {
	n := int64(len(s.raw))
	for _, seg := range s.segments {
		n += seg.Size
	}
	return n
}

// publish writes what makes a stream of the segments: init segments, media playlists
// and, when all else is there, the multivariant playlist.
func (w *worker) publish(ctx context.Context, job myrmidon.Job) (myrmidon.Result, error) {
	j, err := w.open(ctx, job)
	if err != nil {
		return j.result(job, nil), err
	}
	out, err := j.publish(ctx, job.Run)
	if err != nil {
		return j.result(job, nil), fmt.Errorf("%s: publish: %w", j.source(), err)
	}
	r := j.result(job, nil)
	for i := range job.Items() {
		r.Items = append(r.Items, myrmidon.ItemResult{Index: i, Name: out.Master, Bytes: out.Bytes})
	}
	if r.Output, err = json.Marshal(out); err != nil {
		return r, fmt.Errorf("transcode: encode the output's description: %w", err)
	}
	return r, nil
}

func (j *jobContext) publish(ctx context.Context, run string) (*Output, error) {
	streams, sound, err := j.gather(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range append(streams, sound...) {
		if err := j.putStream(ctx, s); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	master, out := j.master(streams, sound)
	b, err := master.Append(nil)
	if err != nil {
		return nil, err
	}
	if err := j.store.put(ctx, out.Master, b, cacheNever); err != nil {
		return nil, err
	}
	// What killed processes left half-written was never visible; now it goes.
	if sweeper, ok := j.store.Store.(interface {
		Sweep(ctx context.Context, prefix string, older time.Duration) (int, error)
	}); ok {
		if _, err := sweeper.Sweep(ctx, streamFolder(j.task.Name)+"/", 0); err != nil {
			return nil, err
		}
	}
	// Later phases of this run have been planned; nobody else looks there.
	if err := j.store.Delete(ctx, originKey(j.task.Name, run)); err != nil {
		return nil, err
	}
	if err := j.sweepOrigins(ctx); err != nil {
		// The stream is published. A store may well forbid to list.
		j.w.log.Info("old runs' notes are left where they are", "stream", j.task.Name, "error", err)
	}
	return out, nil
}

// sweepOrigins removes the origins that runs of this stream have left which failed or
// were cancelled, once nobody will take them up any more.
func (j *jobContext) sweepOrigins(ctx context.Context) error {
	for info, err := range j.store.List(ctx, originPrefix(j.task.Name), "") {
		if err != nil {
			return err
		}
		if time.Since(info.Modified) < originLife {
			continue
		}
		if err := j.store.Delete(ctx, info.Key); err != nil {
			return err
		}
	}
	return nil
}

// gather reads the results of all items and puts the renditions together. sound has
// one stream or none. All chunks of a rendition must have the same init segment,
// since players get the first one's.
func (j *jobContext) gather(ctx context.Context) (streams, sound []stream, err error) {
	p := j.plan
	streams = make([]stream, len(p.Renditions))
	read := func(ctx context.Context, k int) (*itemResult, error) { return j.readResult(ctx, k, len(streams)) }
	err = inOrder(ctx, len(p.Chunks), read, func(k int, r *itemResult) (err error) {
		for i := range streams {
			s, part := &streams[i], &r.Renditions[i]
			if k == 0 {
				s.name, s.raw = part.Name, part.Init
				if s.init, err = ffmpeg.ParseInit(part.Init); err != nil {
					return fmt.Errorf("%s: %w", part.Name, err)
				}
			}
			if part.Name != s.name || !bytes.Equal(part.Init, s.raw) {
				return myrmidon.Permanent(myrmidon.WithHint(
					fmt.Errorf("%s: chunk %d was encoded with other parameters than the first", s.name, k+1),
					"run again with --force: parts were made by different encoders"))
			}
			s.segments = append(s.segments, part.Segments...)
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for i := range streams {
		if n := len(streams[i].segments); n != p.Segments {
			return nil, nil, fmt.Errorf("%s: %d segments, not %d", streams[i].name, n, p.Segments)
		}
	}
	if p.Audio == nil {
		return streams, nil, nil
	}
	r, err := j.readResult(ctx, audioItem, 1)
	if err != nil {
		return nil, nil, err
	}
	part := &r.Renditions[0]
	if len(part.Segments) == 0 {
		return streams, nil, nil // an audio stream without a packet
	}
	s := stream{name: part.Name, raw: part.Init, segments: part.Segments}
	if s.init, err = ffmpeg.ParseInit(part.Init); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", part.Name, err)
	}
	return streams, []stream{s}, nil
}

func (j *jobContext) readResult(ctx context.Context, chunk, renditions int) (*itemResult, error) {
	r := new(itemResult)
	if err := j.store.getJSON(ctx, j.plan.resultKey(j.task.Name, chunk), r); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = myrmidon.Permanent(myrmidon.WithHint(err, "start the run again: what it had made is gone"))
		}
		return nil, err
	}
	if r.ID != j.plan.ID || r.Version != planVersion || len(r.Renditions) != renditions {
		return nil, fmt.Errorf("the result of item %d is of another plan", chunk)
	}
	return r, nil
}

// putStream writes a rendition's init segment and playlists.
func (j *jobContext) putStream(ctx context.Context, s stream) error {
	key := func(file string) string { return j.plan.mediaKey(j.task.Name, s.name, file) }
	if err := j.store.put(ctx, key(initFile), s.raw, cacheForever); err != nil {
		return err
	}
	media := s.playlist()
	b, err := media.Append(nil)
	if err != nil {
		return err
	}
	if err := j.store.put(ctx, key(mediaFile), b, cacheForever); err != nil {
		return err
	}
	if s.init.Handler != "vide" {
		return nil
	}
	media.IFramesOnly = true
	for i, seg := range s.segments {
		media.Segments[i].ByteRange = &hls.ByteRange{Length: seg.KeySize}
	}
	if b, err = media.Append(nil); err != nil {
		return err
	}
	return j.store.put(ctx, key(iframeFile), b, cacheForever)
}

// playlist is the media playlist. A keyframe begins each segment and none is
// elsewhere, so the same durations hold for the I-frame playlist.
func (s *stream) playlist() *hls.Media {
	m := &hls.Media{
		PlaylistType:        hls.VOD,
		IndependentSegments: true,
		Map:                 &hls.Map{URI: initFile},
		EndList:             true,
	}
	for _, seg := range s.segments {
		m.Segments = append(m.Segments, hls.Segment{URI: seg.file(), Duration: s.seconds(seg.Duration)})
	}
	return m
}

func (s *stream) seconds(ticks uint64) float64 { return float64(ticks) / float64(s.init.Timescale) }

// master is the multivariant playlist, and the description of it all.
func (j *jobContext) master(streams, sound []stream) (*hls.Multivariant, *Output) {
	p := j.plan
	m := &hls.Multivariant{IndependentSegments: true}
	out := &Output{
		Master: path.Join(streamFolder(j.task.Name), masterFile), Version: p.ID,
		Frames: p.Frames, Verified: p.Frames, Verify: j.task.Verify, Duration: p.Duration(),
	}
	if out.Verify == "" {
		out.Verify = VerifyQuick
	}
	group, soundCodec := "", ""
	var soundPeak, soundMean float64
	for i := range sound {
		s := &sound[i]
		group, soundCodec = "audio", ","+s.init.Codec
		soundPeak, soundMean = s.bitRates()
		language := tag(p.Audio.Language)
		name := language
		if name == "" {
			name = "audio"
		}
		m.Renditions = append(m.Renditions, hls.Rendition{
			Type: hls.Audio, Group: group, Name: name, Language: language,
			Default: true, AutoSelect: true, Channels: strconv.Itoa(p.Audio.Channels),
			URI: path.Join(p.ID, s.name, mediaFile),
		})
	}
	for i := range streams {
		s, r := &streams[i], p.Renditions[i]
		peak, mean := s.bitRates()
		keyPeak, keyMean := s.keyBitRates()
		size := hls.Resolution{Width: r.Width, Height: r.Height}
		v := hls.Variant{
			Bandwidth: int64(peak + soundPeak + 1), AverageBandwidth: int64(mean + soundMean + 1),
			Codecs: s.init.Codec + soundCodec, Resolution: size, FrameRate: p.Rate.Float(),
			VideoRange: hls.SDR, Audio: group, URI: path.Join(p.ID, s.name, mediaFile),
		}
		m.Variants = append(m.Variants, v)
		m.IFrames = append(m.IFrames, hls.IFrameVariant{
			Bandwidth: int64(keyPeak + 1), AverageBandwidth: int64(keyMean + 1), Codecs: s.init.Codec,
			Resolution: size, VideoRange: hls.SDR, URI: path.Join(p.ID, s.name, iframeFile),
		})
		out.Segments += len(s.segments)
		out.Bytes += s.bytes()
		out.Renditions = append(out.Renditions, RenditionOutput{
			Name: s.name, Width: r.Width, Height: r.Height, Codecs: v.Codecs,
			Bandwidth: v.Bandwidth, AverageBandwidth: v.AverageBandwidth,
			Segments: len(s.segments), Bytes: s.bytes(), Frames: p.Frames,
		})
	}
	for i := range sound {
		s := &sound[i]
		out.AudioSegments += len(s.segments)
		out.Bytes += s.bytes()
		out.Renditions = append(out.Renditions, RenditionOutput{
			Name: s.name, Codecs: s.init.Codec, Bandwidth: int64(soundPeak + 1), AverageBandwidth: int64(soundMean + 1),
			Segments: len(s.segments), Bytes: s.bytes(),
		})
	}
	return m, out
}

// bitRates are the peak and the average segment bit rate, bits a second.
func (s *stream) bitRates() (peak, mean float64) {
	return s.rates(func(seg segmentResult) int64 { return seg.Size })
}

// keyBitRates are those of the I-frame playlist.
func (s *stream) keyBitRates() (peak, mean float64) {
	return s.rates(func(seg segmentResult) int64 { return seg.KeySize })
}

// rates computes what RFC 8216bis, section 4.4.6.2, asks for: the peak is the largest
// rate of any run of segments that lasts between half and one and a half target
// durations; a single short one does not count, unless there is nothing longer.
func (s *stream) rates(size func(segmentResult) int64) (peak, mean float64) {
	var bits, seconds, longest float64
	for _, seg := range s.segments {
		bits += 8 * float64(size(seg))
		seconds += s.seconds(seg.Duration)
		longest = max(longest, s.seconds(seg.Duration))
	}
	mean = bits / seconds
	target := max(1, float64(int64(longest+0.5)))
	for i := range s.segments {
		bits, seconds = 0, 0
		for _, seg := range s.segments[i:] {
			bits += 8 * float64(size(seg))
			seconds += s.seconds(seg.Duration)
			if seconds > 1.5*target {
				break
			}
			if seconds >= 0.5*target {
				peak = max(peak, bits/seconds)
			}
		}
	}
	return max(peak, mean), mean
}

// rateText is a frame rate for people and playlists: "24", "23.976".
func rateText(rate float64) string {
	return strconv.FormatFloat(float64(int64(rate*1000+0.5))/1000, 'f', -1, 64)
}

// tag turns a language as containers name it (ISO 639-2, "eng", "ger") into one of RFC
// 5646, which wants the shortest code ("en", "de"); "" if it is unknown.
func tag(language string) string {
	if short, ok := languages[language]; ok {
		return short
	}
	if len(language) != 2 && len(language) != 3 {
		return ""
	}
	for _, c := range language {
		if c < 'a' || c > 'z' {
			return ""
		}
	}
	return language
}

// languages are the codes of ISO 639-2, bibliographic ones too, that have a shorter
// one in ISO 639-1, for the languages with most speakers. Others are valid as they are.
var languages = map[string]string{
	"und": "", "mul": "", "zxx": "", "mis": "",
	"ara": "ar", "ben": "bn", "bul": "bg", "cat": "ca", "ces": "cs", "cze": "cs", "chi": "zh", "zho": "zh",
	"dan": "da", "deu": "de", "ger": "de", "dut": "nl", "nld": "nl", "ell": "el", "gre": "el", "eng": "en",
	"est": "et", "fas": "fa", "per": "fa", "fin": "fi", "fra": "fr", "fre": "fr", "heb": "he", "hin": "hi",
	"hrv": "hr", "hun": "hu", "ind": "id", "isl": "is", "ice": "is", "ita": "it", "jpn": "ja", "kor": "ko",
	"lav": "lv", "lit": "lt", "may": "ms", "msa": "ms", "nor": "no", "nob": "nb", "nno": "nn", "pol": "pl",
	"por": "pt", "ron": "ro", "rum": "ro", "rus": "ru", "slk": "sk", "slo": "sk", "slv": "sl", "spa": "es",
	"srp": "sr", "swe": "sv", "tam": "ta", "tel": "te", "tha": "th", "tur": "tr", "ukr": "uk", "urd": "ur",
	"vie": "vi",
}
