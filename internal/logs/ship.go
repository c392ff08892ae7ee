package logs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"myrmidon"
	"myrmidon/elb"
	"myrmidon/object"
	"myrmidon/sink"
)

const (
	// settleEvery is how long lines may be under way before all that were read are waited
	// for, and the checkpoint advances: it bounds what a killed process sends again.
	settleEvery = 2 * time.Second
	// keptRejects is how many lines of an object are remembered that were not delivered; if
	// there are more, a retry reads the whole object.
	keptRejects = 1000
	// memory is what records under way of one object hold unless the spec says otherwise.
	memory = 2 << 20
	stamp  = "2006-01-02T15:04:05.000000Z"
)

// checkpoint is how far an object is done: every line before Offset is settled.
type checkpoint struct {
	ETag    string `json:"etag"`
	Plain   bool   `json:"plain,omitempty"`
	Offset  int64  `json:"offset"` // in inflated bytes
	Line    int64  `json:"line"`
	Header  string `json:"header,omitempty"`
	Done    bool   `json:"done,omitempty"` // to its end; Rejects are what is left
	Counts  Counts `json:"counts"`
	Newest  time.Time
	Rejects []Reject `json:"rejects,omitempty"`
	More    int64    `json:"more,omitempty"` // rejects that are not kept
}

// shipment is one object on its way.
type shipment struct {
	w       *worker
	task    *task
	filter  *Prepared
	store   object.Store
	sink    sink.Sink
	run     string
	mark    string // the checkpoint's name
	key     string
	name    string
	moved   *atomic.Int64
	batcher *atomic.Pointer[sink.Batcher] // told to whoever looks at progress meanwhile
	at      checkpoint                    // saved, or worth to be
	resumed int64                         // the offset from which it went on
	changed bool                          // another version than the checkpoint's was found
	due     bool                          // at is to be written once the sink has confirmed
	was     checkpoint                    // what it began with
	further bool                          // what was saved is further than that
	until   time.Time                     // when to stop, with a checkpoint; zero means never

	mu     sync.Mutex // of refused: the batcher's goroutines add to it
	refuse []Reject
}

func (s *shipment) load(ctx context.Context) error {
	if s.w.cfg.Checkpoints == nil {
		return nil
	}
	data, err := s.w.cfg.Checkpoints.Load(ctx, s.run, s.task.Place, s.mark)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("logs: checkpoint of %s: %w", s.name, err)
	}
	if err := json.Unmarshal(data, &s.at); err != nil {
		// A machine that lost its power tore it, and will not write it anew: lines may come twice.
		s.w.cfg.log().Warn("a checkpoint cannot be read; its object is read from its beginning", "object", s.name, "err", err)
		s.at = checkpoint{}
	}
	return nil
}

func (s *shipment) save(ctx context.Context) error {
	if err := s.at.Counts.Check(); err != nil {
		return myrmidon.Permanent(err)
	}
	if s.w.cfg.Checkpoints == nil {
		return nil
	}
	if sink.TraitsOf(s.sink).Unconfirmed {
		s.due = true
	} else if err := s.write(ctx); err != nil {
		return err
	}
	s.further = s.at.Offset > s.was.Offset || s.at.Done && (!s.was.Done || len(s.at.Rejects) < len(s.was.Rejects))
	return nil
}

// confirm writes down what was to be saved while nobody knew whether the lines had arrived: the
// sink is closed now, and has said so. A process that is killed before sends them again.
func (s *shipment) confirm(ctx context.Context) error {
	if !s.due {
		return nil
	}
	s.due = false
	return s.write(ctx)
}

func (s *shipment) write(ctx context.Context) error {
	data, err := json.Marshal(s.at)
	if err == nil {
		err = s.w.cfg.Checkpoints.Save(ctx, s.run, s.task.Place, s.mark, data)
	}
	if err != nil {
		return fmt.Errorf("logs: checkpoint of %s: %w", s.name, err)
	}
	return nil
}

// forget takes the checkpoint away of an object that is done. It is kept up to its job's end:
// a job that comes again passes over the objects before.
func (s *shipment) forget(ctx context.Context) error {
	if s.w.cfg.Checkpoints == nil {
		return nil
	}
	return s.w.cfg.Checkpoints.Forget(ctx, s.run, s.task.Place, s.mark)
}

// settled reports whether nothing of the object's version is left to be done.
func (c *checkpoint) settled() bool { return c.Done && len(c.Rejects) == 0 && c.More == 0 }

// ship delivers the lines of the object that are not settled yet. On an error, at says how
// far it came.
func (s *shipment) ship(ctx context.Context) error {
	if err := s.load(ctx); err != nil {
		return err
	}
	s.was = s.at
	var only map[int64]bool // the lines to be tried again; nil means all
	settled := s.at.settled()
	if s.at.Done && !settled {
		if s.at.More > 0 {
			s.at, s.was = checkpoint{}, checkpoint{}
		} else {
			only = s.at.again()
		}
	}
	from := s.at.Offset
	if only != nil || s.at.Done {
		from = 0
	}
	raw, info, err := s.open(ctx, &from)
	if err != nil {
		return err
	}
	defer raw.Close() // it is only read
	if s.at.ETag != "" && info.ETag != s.at.ETag {
		s.at, s.was, only, s.changed = checkpoint{}, checkpoint{}, nil, true
		from, settled = 0, false
	}
	if settled {
		return nil
	}
	s.at.ETag = info.ETag
	s.resumed = from
	in, err := s.inflate(raw, from)
	if err != nil {
		return err
	}
	cfg := elb.Config{Format: s.filter.Format, Key: s.key}
	if from > 0 {
		cfg.Offset, cfg.Line, cfg.Header = from, s.at.Line, s.at.Header
	}
	return s.pump(ctx, elb.NewReader(in, cfg), only)
}

// again returns where the lines are that were not delivered.
func (c *checkpoint) again() map[int64]bool {
	only := make(map[int64]bool, len(c.Rejects))
	for _, r := range c.Rejects {
		only[r.Offset] = true
	}
	return only
}

// refused counts a line that was not delivered, or takes it out again.
func (c *Counts) refused(r Reject, n int64) {
	c.Encountered += n
	if r.Kind == parsing {
		c.Unparsed += n
		return
	}
	c.Parsed += n
	c.Failed += n
	c.Sent += n
}

// open opens the object: a plain one, as the checkpoint has it, at an offset.
func (s *shipment) open(ctx context.Context, from *int64) (io.ReadCloser, object.Info, error) {
	at := int64(0)
	if s.at.Plain {
		at = *from
	}
	raw, info, err := s.store.Get(ctx, s.key, at, -1)
	if at > 0 && (errors.Is(err, object.ErrRange) || err == nil && info.ETag != s.at.ETag) {
		// It was replaced: it is read from its beginning.
		if err == nil {
			err = raw.Close()
		}
		if err != nil && !errors.Is(err, object.ErrRange) {
			return nil, info, err
		}
		*from = 0
		raw, info, err = s.store.Get(ctx, s.key, 0, -1)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("the object is gone: %w", err), "it was deleted after it had been listed; its lines cannot be delivered any more"))
	}
	return raw, info, err
}

// inflate returns the object's bytes from an offset on.
func (s *shipment) inflate(raw io.Reader, from int64) (io.Reader, error) {
	counted := &moving{raw, s.moved}
	if s.at.Plain && from > 0 {
		return counted, nil
	}
	b, err := newBody(counted)
	if err != nil {
		return nil, err
	}
	s.at.Plain = b.packed == nil
	return b, b.skip(from)
}

// moving counts bytes for whoever looks at progress meanwhile.
type moving struct {
	r io.Reader
	n *atomic.Int64
}

func (m *moving) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n.Add(int64(n))
	return n, err
}

// parked remembers a record that the sink never takes.
func (s *shipment) parked(r sink.Record, err error) error {
	_, text, _ := strings.Cut(r.ID, "-")
	offset, bad := strconv.ParseInt(text, 10, 64)
	if bad != nil {
		return bad
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = append(s.refuse, Reject{Offset: offset, Reason: err.Error(), Kind: sending})
	return nil
}

// pump reads lines and hands them to the sink. At a checkpoint everything that was read is
// settled. Of lines that are tried again only says which are left; those are counted anew.
func (s *shipment) pump(ctx context.Context, lines *elb.Reader, only map[int64]bool) (err error) {
	size := s.task.Memory
	if size == 0 {
		size = memory
	}
	// A batch of a quarter: two are under way, and what is read meanwhile has room.
	batcher := sink.NewBatcher(s.sink, sink.BatcherConfig{Bytes: size / 4, Memory: size, Parked: s.parked})
	s.batcher.Store(batcher)
	defer func() {
		ended, stop := context.WithCancel(context.Background())
		stop() // what is not settled here is cut off: the next attempt sends it again
		if closeErr := batcher.Close(ended); err == nil && closeErr != nil && !errors.Is(closeErr, context.Canceled) {
			err = closeErr
		}
	}()
	now := s.at // with what is under way
	if only != nil {
		now.Rejects = nil
		for _, r := range s.at.Rejects {
			now.Counts.refused(r, -1)
		}
	}
	var before sink.BatcherStats
	settle := func(done bool) error {
		if err := batcher.Flush(ctx); err != nil {
			return &sinkError{err}
		}
		st := batcher.Stats()
		s.settled(&now, st, before, only)
		before = st
		s.at.Done, s.at.Header = done || only != nil, lines.Header()
		return s.save(ctx)
	}
	prefix := newPrefix(s.name, s.at.ETag, s.task.Filter.ECS)
	var timeOver atomic.Bool
	if !s.until.IsZero() {
		timer := time.AfterFunc(time.Until(s.until), func() { timeOver.Store(true) })
		defer timer.Stop()
	}
	settled, n := time.Now(), 0
	for record, lineErr := range lines.Lines() {
		var bad *elb.LineError
		if record == nil && !errors.As(lineErr, &bad) {
			err := settle(false) // the lines before are delivered
			if to := (*sinkError)(nil); errors.As(err, &to) && !myrmidon.IsPermanent(lineErr) {
				err = nil // it is the object that failed, and perhaps for longer than there was time
			}
			return errors.Join(lineErr, err)
		}
		at := offsetOf(record, bad)
		if only != nil && !only[at] && !timeOver.Load() {
			continue
		}
		if only == nil || only[at] {
			if err := s.line(ctx, &now, record, bad, prefix, batcher); err != nil {
				return err
			}
			delete(only, at)
		}
		over := timeOver.Load()
		if n++; over || n%64 == 0 && time.Since(settled) > settleEvery {
			if err := settle(false); err != nil {
				return err
			}
			settled = time.Now()
		}
		if over {
			return errTimeOver
		}
	}
	return settle(true)
}

// settled makes a checkpoint of what was read until now, all of which is settled.
func (s *shipment) settled(now *checkpoint, st, before sink.BatcherStats, only map[int64]bool) {
	now.Counts.Sent += int64(st.Sent - before.Sent)
	now.Counts.Acked += int64(st.Acked - before.Acked)
	now.Counts.Failed += int64(st.Failed - before.Failed)
	s.mu.Lock()
	for _, r := range s.refuse {
		now.keep(r)
	}
	s.refuse = s.refuse[:0]
	s.mu.Unlock()
	s.at = *now
	s.at.Rejects = slices.Clone(now.Rejects)
	for _, r := range s.was.Rejects {
		if only[r.Offset] { // it was not tried yet
			s.at.Counts.refused(r, 1)
			s.at.keep(r)
		}
	}
}

// offsetOf is where a line begins, which is a record or a bad line.
func offsetOf(record *elb.Record, bad *elb.LineError) int64 {
	if record != nil {
		return record.Offset
	}
	return bad.Offset
}

// line counts a line and hands it on.
func (s *shipment) line(ctx context.Context, now *checkpoint, record *elb.Record, bad *elb.LineError, prefix *prefix, batcher *sink.Batcher) error {
	now.Counts.Encountered++
	if bad != nil {
		now.Counts.Unparsed++
		now.advance(bad.Line, bad.End)
		r := rejectOf("", bad)
		now.keep(r)
		return nil
	}
	now.Counts.Parsed++
	now.advance(record.Line, record.End)
	t, _ := record.Time()
	if t.After(now.Newest) {
		now.Newest = t
	}
	if !s.filter.Takes(record, s.name) {
		now.Counts.Filtered++
		return nil
	}
	if _, err := batcher.Add(ctx, sink.Record{ID: lineID(prefix.id, record.Offset), Time: t, Data: prefix.document(s.filter, record, t)}); err != nil {
		return &sinkError{err}
	}
	return nil
}

// sinkError is an error of the destination, not of the object.
type sinkError struct{ err error }

func (e *sinkError) Error() string { return e.err.Error() }
func (e *sinkError) Unwrap() error { return e.err }

// advance says where the next line begins. Lines that are tried again do not lead back.
func (c *checkpoint) advance(line, end int64) {
	if end > c.Offset {
		c.Offset, c.Line, c.Counts.Bytes = end, line, end
	}
}

// keep remembers a line that was not delivered.
func (c *checkpoint) keep(r Reject) {
	if len(c.Rejects) >= keptRejects {
		c.More++
		return
	}
	if len(r.Reason) > 300 {
		r.Reason = strings.ToValidUTF8(r.Reason[:300], "") + "…"
	}
	c.Rejects = append(c.Rejects, r)
}

// prefix is what each document of an object begins with: when it happened, its ID, and
// where the line stands.
type prefix struct {
	id, object       string // the object's part of the ID; its name in JSON
	ids, names, line string // of the members
	ecs              bool
	doc              []byte
}

func newPrefix(name, etag string, ecs bool) *prefix {
	text, _ := json.Marshal(strings.ToValidUTF8(name, "\ufffd")) // of a string
	p := &prefix{id: ID(name, etag), object: string(text), ids: "id", names: "object", line: "offset", ecs: ecs}
	if ecs {
		p.ids, p.names, p.line = "event.id", "log.file.path", "log.offset"
	}
	return p
}

// document returns a record's document, which holds until the next.
func (p *prefix) document(f *Prepared, r *elb.Record, t time.Time) []byte {
	d := append(p.doc[:0], '{')
	if !t.IsZero() && (!p.ecs || f.fields != nil && !f.fields["@timestamp"]) {
		d = append(d, `"@timestamp":"`...)
		d = t.AppendFormat(d, stamp)
		d = append(d, `",`...)
	}
	d = append(d, '"')
	d = append(d, p.ids...)
	d = append(d, `":"`...)
	d = append(d, p.id...)
	d = append(d, '-')
	d = strconv.AppendInt(d, r.Offset, 10)
	d = append(d, `","`...)
	d = append(d, p.names...)
	d = append(d, `":`...)
	d = append(d, p.object...)
	d = append(d, `,"`...)
	d = append(d, p.line...)
	d = append(d, `":`...)
	d = strconv.AppendInt(d, r.Offset, 10)
	at := len(d)
	if d = f.Append(d, r); len(d) == at+2 {
		d = append(d[:at], '}')
	} else {
		d[at] = ',' // its brace
	}
	p.doc = d
	return d
}
