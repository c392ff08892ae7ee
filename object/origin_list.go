package object

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"myrmidon"
)

const (
	maxIndex    = 64 << 20 // bytes of an index page: some 300,000 files
	maxDepth    = 64       // folders within folders: a server may follow a link in circles
	originHeads = 16       // requests at once, for what HTML does not say
)

// List yields the files below the origin in byte order of keys: see [Origin]. It reads one
// folder's page at a time; in memory are those that lead to the present one.
func (o *Origin) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		l := originListing{ctx: ctx, o: o, prefix: prefix, after: after, yield: yield}
		err := ctx.Err()
		if folder := folderOf(prefix); err == nil && (folder == "" || CheckKey(folder) == nil) && !strings.HasPrefix(prefix, "/") {
			if folder != "" {
				folder += "/"
			}
			err = l.walk(folder, 0)
			if folder != "" && errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		}
		if err != nil && !errors.Is(err, errStopped) {
			yield(Info{}, o.fail(ctx, "list", prefix, err))
		}
	}
}

// Page returns one page of a listing. It reads the pages of the folders on the way to its keys
// anew. See [Pager].
func (o *Origin) Page(ctx context.Context, prefix, after string, most int) ([]Info, bool, error) {
	return pageOf(o.List(ctx, prefix, after), most)
}

// originListing is one List under way.
type originListing struct {
	ctx           context.Context // of this one call, which is all that a listing lives for
	o             *Origin
	prefix, after string
	yield         func(Info, error) bool
}

// indexed is a name on an index page. A folder's ends in "/".
type indexed struct {
	name     string
	size     int64
	modified time.Time
	known    bool // size and modified are
}

// walk yields what is in a folder, "" or a key with a "/" behind it, and below.
func (l *originListing) walk(folder string, depth int) error {
	if depth > maxDepth || len(folder) > MaxKey {
		return myrmidon.Permanent(fmt.Errorf("the folder %.100q is more than %d folders deep: does a link lead in a circle?", folder, maxDepth))
	}
	all, err := l.o.index(l.ctx, folder)
	if err != nil {
		return err
	}
	var files []Info // those in a row that nothing but a HEAD knows
	flush := func() error {
		err := l.heads(files)
		files = files[:0]
		return err
	}
	for _, e := range all {
		key := folder + e.name
		inside := strings.HasPrefix(key, l.prefix)
		switch isFolder := strings.HasSuffix(key, "/"); {
		case isFolder && inside && (key > l.after || strings.HasPrefix(l.after, key)):
			if err := flush(); err != nil {
				return err
			}
			err := l.walk(key, depth+1)
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // gone since the page was made
				return err
			}
		case isFolder, !inside, key <= l.after, CheckKey(key) != nil:
		case e.known && len(files) == 0:
			if !l.yield(Info{Key: key, Size: e.size, Modified: e.modified, Attrs: Attrs{}.complete(key)}, nil) {
				return errStopped
			}
		default:
			if files = append(files, Info{Key: key}); len(files) == originHeads {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	return flush()
}

// heads asks for files side by side and yields them in order, without those that are gone. One
// that is denied has an unknown size: getting it will say why.
func (l *originListing) heads(files []Info) error {
	failed := make([]error, len(files))
	var all sync.WaitGroup
	for i := range files {
		all.Go(func() {
			var a *answered
			key := files[i].Key
			files[i], failed[i] = l.o.Head(l.ctx, key)
			if errors.As(failed[i], &a) && a.status < 500 && a.status != http.StatusTooManyRequests && !errors.Is(failed[i], fs.ErrNotExist) {
				files[i], failed[i] = Info{Key: key, Size: -1, Attrs: Attrs{}.complete(key)}, nil
			}
		})
	}
	all.Wait()
	for i, info := range files {
		switch {
		case errors.Is(failed[i], fs.ErrNotExist):
		case failed[i] != nil:
			return failed[i]
		case !l.yield(info, nil):
			return errStopped
		}
	}
	return nil
}

// index reads the index page of a folder and returns what is in it, in the order of keys.
func (o *Origin) index(ctx context.Context, folder string) ([]indexed, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*originStall) // pages have no length to resume by
	defer cancel()
	resp, err := o.send(ctx, http.MethodGet, folder, nil)
	var a *answered
	if errors.As(err, &a) && a.status == http.StatusForbidden && folder == "" {
		return nil, o.unlisted(a)
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxIndex+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("read the index page of %q: %w", folder, err)
	}
	if len(data) > maxIndex {
		return nil, o.unlisted(fmt.Errorf("the index page of %q is longer than %d bytes", folder, maxIndex))
	}
	var found []indexed
	if kind := resp.Header.Get("Content-Type"); strings.HasPrefix(kind, "application/json") {
		found, err = parseIndexJSON(data)
	} else {
		found, err = parseIndexHTML(data, resp.Request.URL)
	}
	if err != nil {
		return nil, o.unlisted(fmt.Errorf("the page of %q is no list of files: %w", "/"+folder, err))
	}
	slices.SortFunc(found, func(a, b indexed) int { return strings.Compare(a.name, b.name) })
	return slices.CompactFunc(found, func(a, b indexed) bool { return a.name == b.name }), nil
}

func (o *Origin) unlisted(err error) error {
	return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("this HTTP origin cannot be listed: %w", err), "give --files-from with the keys that you want"))
}

// parseIndexJSON reads what nginx writes with autoindex_format json.
func parseIndexJSON(data []byte) ([]indexed, error) {
	var entries []struct {
		Name     string `json:"name"`
		Type     string `json:"type"`
		Modified string `json:"mtime"`
		Size     *int64 `json:"size"`
	}
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, err
	}
	var out []indexed
	for _, e := range entries {
		x := indexed{name: e.Name}
		if x.name == "" || strings.Contains(x.name, "/") {
			continue
		}
		switch e.Type {
		case "directory":
			x.name += "/"
		case "file":
			if t, err := http.ParseTime(e.Modified); err == nil && e.Size != nil && *e.Size >= 0 {
				x.size, x.modified, x.known = *e.Size, t.UTC(), true
			}
		default:
			return nil, errors.New("an entry is neither a file nor a directory")
		}
		out = append(out, x)
	}
	return out, nil
}

// titles are what the title of an index page begins with: nginx, Apache and lighttpd, and
// Python. A page without one is a page of somebody's, whose links mean something else.
var titles = []string{"index of", "directory listing for"}

// parseIndexHTML reads the links of an index page at a URL that lead to what is in its own
// folder. It does not understand HTML: it looks for the href of each <a>.
func parseIndexHTML(page []byte, at *url.URL) ([]indexed, error) {
	lower := bytes.ToLower(page[:min(len(page), 4<<10)])
	_, rest, _ := bytes.Cut(lower, []byte("<title>"))
	title := strings.TrimSpace(string(rest[:min(len(rest), 64)]))
	if !slices.ContainsFunc(titles, func(t string) bool { return strings.HasPrefix(title, t) }) {
		return nil, errors.New(`its title does not begin with "Index of"`)
	}
	base := at.EscapedPath()
	base = base[:strings.LastIndexByte(base, '/')+1]
	root, err := url.PathUnescape(base)
	if err != nil {
		return nil, err
	}
	var out []indexed
	for rest := page; ; {
		i := bytes.IndexByte(rest, '<')
		if i < 0 {
			return out, nil
		}
		rest = rest[i+1:]
		end := bytes.IndexByte(rest, '>')
		if end < 0 {
			return out, nil
		}
		if name := linked(string(rest[:end]), at, root); name != "" {
			out = append(out, indexed{name: name})
		}
	}
}

// linked returns the name in the folder root that a tag links to, "" if it links to something
// else: another folder, an order of the list, a script.
func linked(tag string, at *url.URL, root string) string {
	if len(tag) < 3 || tag[0]|0x20 != 'a' || !strings.ContainsRune(" \t\r\n", rune(tag[1])) {
		return ""
	}
	_, value, ok := strings.Cut(tag, "href=")
	if !ok {
		if _, value, ok = strings.Cut(tag, "HREF="); !ok {
			return ""
		}
	}
	if value != "" && (value[0] == '"' || value[0] == '\'') {
		quote := value[:1]
		value, _, ok = strings.Cut(value[1:], quote)
	} else {
		value, _, _ = strings.Cut(value, " ")
	}
	ref, err := url.Parse(html.UnescapeString(value))
	if !ok || err != nil || ref.RawQuery != "" || ref.Fragment != "" {
		return ""
	}
	to := at.ResolveReference(ref)
	name, inside := strings.CutPrefix(to.Path, root)
	if to.Scheme != at.Scheme || to.Host != at.Host || !inside || CheckKey(strings.TrimSuffix(name, "/")) != nil {
		return ""
	}
	if i := strings.IndexByte(name, '/'); i >= 0 && i < len(name)-1 {
		return ""
	}
	return name
}
