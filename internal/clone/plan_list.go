package clone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"myrmidon"
	"myrmidon/object"
)

const (
	// listShards is how many parts of a list are planned side by side, page by page in turn.
	listShards = 8
	// worth is how many keys a page of a listing must tell of: it costs as much as 12.5
	// HEADs (see cost.S3Prices), and takes longer than one.
	worth = 16
)

// ask says what of an object is not known yet, and must be asked for by the job.
type ask uint8

const (
	askSource ask = 1 << iota
	askDestination
)

// listCursor says which page of the list is next.
type listCursor struct {
	Page   int `json:"page"`
	Stride int `json:"stride"`
	Pages  int `json:"pages"`
}

// plan is the planner. It enters the requests of planning into the slice.
func (w *worker) plan(ctx context.Context, step myrmidon.Step) (myrmidon.Slice, error) {
	spec, err := read[Spec]("the run's spec", step.Spec)
	if err != nil {
		return myrmidon.Slice{}, err
	}
	book := w.runs.open(step.Run, spec.Limits)
	ctx = book.with(ctx)
	var out myrmidon.Slice
	if spec.List != nil {
		out, err = w.planList(ctx, &spec, step)
	} else {
		out, err = w.planStep(ctx, step)
	}
	if err != nil {
		w.runs.owe(step.Run, spec.Limits, book.requests())
		return out, err
	}
	out.Usage.Requests = w.runs.settle(step.Run, book.requests())
	if step.Phase == phaseCopy && step.Shard == 0 && len(step.Cursor) == 0 {
		out.Usage.Requests = addUp(out.Usage.Requests, spec.Before)
	}
	return out, nil
}

// planList plans the next page of the list of a shard.
func (w *worker) planList(ctx context.Context, spec *Spec, step myrmidon.Step) (out myrmidon.Slice, err error) {
	if step.Phase == phaseVerify && spec.Verify == VerifyNone || step.Phase == phaseDelete {
		return myrmidon.Slice{Done: true}, nil
	}
	var c listCursor
	if len(step.Cursor) > 0 {
		if c, err = read[listCursor]("cursor", step.Cursor); err != nil {
			return out, err
		}
	} else if c, out.Children, err = w.beginList(ctx, spec, step); err != nil {
		return out, err
	}
	if c.Page >= c.Pages {
		return myrmidon.Slice{Done: true, Children: out.Children}, nil
	}
	keys, err := w.listed(ctx, step.Run, *spec.List, c.Page)
	if err != nil {
		return out, err
	}
	p := listPage{spec: spec}
	kind, choose, both := KindListed, spec.toCopy, spec.Compare != CompareNone
	if step.Phase == phaseVerify {
		kind, choose, both = KindListedVerify, spec.toCheck, true
	}
	if err := w.look(ctx, &p, keys, both); err != nil {
		return out, err
	}
	var chosen []entry
	for i := range p.keys {
		if e, ok := p.choose(i, choose); ok {
			chosen = append(chosen, e)
		}
	}
	if out.Jobs, err = spec.jobs(kind, chosen); err != nil {
		return out, err
	}
	if step.Phase == phaseVerify { // the rest was told with the copying
		p.note = Note{Alike: p.note.Alike, Check: p.note.Check}
	}
	if p.note != (Note{}) {
		if out.Note, err = json.Marshal(p.note); err != nil {
			return out, err
		}
	}
	c.Page += c.Stride
	if out.Done = c.Page >= c.Pages; !out.Done {
		out.Cursor, err = json.Marshal(c)
	}
	return out, err
}

// beginList opens the shards of a list.
func (w *worker) beginList(ctx context.Context, spec *Spec, step myrmidon.Step) (c listCursor, children []myrmidon.Shard, err error) {
	if step.Phase == phaseCopy {
		if err := w.canSet(spec); err != nil {
			return c, nil, err
		}
	}
	head, err := w.listHead(ctx, step.Run, *spec.List)
	if err != nil {
		return c, nil, err
	}
	c = listCursor{Stride: max(min(listShards, head.Pages), 1), Pages: head.Pages}
	for i := 1; i < c.Stride; i++ {
		data, err := json.Marshal(listCursor{i, c.Stride, c.Pages})
		if err != nil {
			return c, nil, err
		}
		children = append(children, myrmidon.Shard{ID: uint32(i), Cursor: data})
	}
	return c, children, nil
}

// listHead reads the part of a list that is stored last.
func (w *worker) listHead(ctx context.Context, run string, l List) (head listHead, err error) {
	data, err := w.part(ctx, run, l, listHeadPart)
	if errors.Is(err, fs.ErrNotExist) {
		return head, myrmidon.Permanent(myrmidon.WithHint(errors.New("the list of keys was not kept whole: the command was ended before the run began"), "start the clone anew"))
	}
	if err != nil {
		return head, err
	}
	return read[listHead]("the head of the list", data)
}

// listed returns the keys of a page of the list.
func (w *worker) listed(ctx context.Context, run string, l List, page int) ([]string, error) {
	data, err := w.part(ctx, run, l, strconv.Itoa(page))
	if errors.Is(err, fs.ErrNotExist) {
		err = myrmidon.Permanent(fmt.Errorf("clone: page %d of the list of keys is gone: %w", page, err))
	}
	if err != nil {
		return nil, err
	}
	return unpackKeys(data)
}

func (w *worker) part(ctx context.Context, run string, l List, part string) ([]byte, error) {
	if w.cfg.ReadList == nil {
		return nil, myrmidon.Permanent(errors.New("clone: nobody here can read the run's list of keys"))
	}
	return w.cfg.ReadList(ctx, run, l, part)
}

// listPage is what is known of the keys of a page of the list.
type listPage struct {
	spec     *Spec
	note     Note
	keys     []string
	src, dst found
}

// found is what a store was found to have of some keys.
type found struct {
	info  []*object.Info
	known []bool // where it is nil: there is none
}

// look finds out what a few listings tell of the keys that the patterns take: of the source,
// and of the destination if both is set.
func (w *worker) look(ctx context.Context, p *listPage, keys []string, both bool) error {
	for _, k := range keys {
		if p.spec.Filter.TakesKey(k) {
			p.keys = append(p.keys, k)
		} else {
			p.note.Listed++
			p.note.Left++
		}
	}
	src, err := w.open(p.spec.Source)
	if err != nil {
		return err
	}
	dst, err := w.open(p.spec.Destination)
	if err != nil {
		return err
	}
	n := len(p.keys)
	p.src, p.dst = found{make([]*object.Info, n), make([]bool, n)}, found{make([]*object.Info, n), make([]bool, n)}
	var other sync.WaitGroup
	var dstErr error
	if both {
		other.Go(func() { dstErr = p.dst.list(into(ctx), dst, p.keys) })
	}
	if n >= worth {
		err = p.src.list(from(ctx), src, p.keys)
	}
	other.Wait()
	if err != nil {
		return fmt.Errorf("list the source: %w", err)
	}
	if dstErr != nil {
		return fmt.Errorf("list the destination: %w", dstErr)
	}
	return nil
}

// list lists what is near the keys, which ascend, as long as each page tells of many of
// them. A store that cannot be listed leaves them unknown, as does one whose files are at
// hand.
func (f *found) list(ctx context.Context, s object.Store, keys []string) error {
	pager, ok := s.(object.Pager)
	if _, local := s.(object.Local); local || !ok {
		return nil
	}
	for i := 0; i < len(keys); {
		// The key without its last character comes before it, and not long before.
		_, size := utf8.DecodeLastRuneInString(keys[i])
		after := keys[i][:len(keys[i])-size]
		page, more, err := pager.Page(ctx, "", after, 0)
		if myrmidon.IsPermanent(err) {
			return nil // who may not list may still look at an object
		}
		if err == nil {
			err = object.CheckPage("", after, page)
		}
		if err != nil {
			return err
		}
		first, at := i, 0
		for ; i < len(keys); i++ {
			for at < len(page) && page[at].Key < keys[i] {
				at++
			}
			if at == len(page) && more {
				break
			}
			f.known[i] = true
			if at < len(page) && page[at].Key == keys[i] {
				f.info[i] = &page[at]
			}
		}
		if i-first < worth {
			return nil
		}
	}
	return nil
}

// choose says what is to be done with a key, if anything.
func (p *listPage) choose(i int, choose func(*Note, *object.Info, *object.Info) *object.Info) (entry, bool) {
	src, dst := p.src.info[i], p.dst.info[i]
	ask := p.ask(i)
	switch {
	case src == nil:
		p.note.Listed++
		return entry{Key: text(p.keys[i]), Ask: ask}, true
	case ask == 0:
		o := choose(&p.note, src, dst)
		if o == nil {
			return entry{}, false
		}
		return entryOf(*o), true
	case !p.spec.Filter.takes(*src):
		p.note.Listed++
		p.note.Left++
		return entry{}, false
	}
	p.note.Listed++
	p.note.Bytes += max(src.Size, 0)
	e := entryOf(*src)
	e.Ask = ask
	return e, true
}

// ask says what the job has to ask for: of the destination nothing, where the copy itself
// is on the condition that there is none or is made in any case.
func (p *listPage) ask(i int) (a ask) {
	if p.src.info[i] == nil {
		a = askSource
	}
	conditional := p.spec.Copy.IfNone || p.spec.Compare == CompareNone
	if !conditional && (!p.dst.known[i] || p.dst.info[i] != nil && a != 0) {
		a |= askDestination
	}
	return a
}

// notListed is the error of a key that the source does not have.
func notListed(key string, err error) error {
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%q is not in the source: %w", key, err), "keys of a list are below SOURCE"+hintOf(key)))
}

// hintOf guesses what is wrong with a key.
func hintOf(key string) string {
	switch {
	case strings.HasPrefix(key, "s3://"):
		return ": without the bucket"
	case strings.HasSuffix(key, " "), strings.HasPrefix(key, " "):
		return ", and spaces belong to them"
	}
	return ""
}
