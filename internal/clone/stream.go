package clone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"myrmidon"
	"myrmidon/internal/checksum"
	"myrmidon/object"
)

// stored are the options of a streamed object that do not depend on it.
func stored(opts object.ImportOptions) object.PutOptions {
	p := object.PutOptions{
		StorageClass: opts.StorageClass, Encryption: opts.Encryption, KMSKey: opts.KMSKey, ACL: opts.ACL, IfNone: opts.IfNone,
	}
	p.Tags = opts.Tags
	if opts.Replace {
		p.Attrs, p.Metadata = opts.Attrs, opts.Metadata
	}
	return p
}

// canSet refuses what the destination cannot give to an object: objects would be without it,
// and nobody told.
func (w *worker) canSet(s *Spec) error {
	opts := stored(s.Copy)
	src, err := w.open(s.Source)
	if err != nil {
		return err
	}
	dst, err := w.open(s.Destination)
	if err != nil {
		return err
	}
	if im, ok := dst.(object.Importer); ok && im.CanImport(src) {
		return nil
	}
	if k, ok := dst.(object.Keeper); ok {
		return k.Keeps(opts)
	}
	if opts.Tags == nil && len(opts.Metadata) == 0 && opts.StorageClass == "" && opts.Encryption == "" && opts.ACL == "" && !opts.IfNone {
		return nil
	}
	return myrmidon.Permanent(myrmidon.WithHint(
		errors.New("this destination keeps no user metadata, tags, storage class, encryption or ACL, and has no conditions"),
		"leave these flags away, or choose a bucket"))
}

// anyTags asks a store whether it keeps tags.
var anyTags = object.PutOptions{Description: object.Description{Tags: map[string]string{}}}

// stream copies an object through this process, with all that the destination can keep of
// it, and returns what was made of what, with the size of what was read. The bytes must have
// the checksum that the source gives, if it gives one.
func stream(ctx context.Context, src, dst object.Store, o object.Info, opts object.ImportOptions, moved *atomic.Int64) (made object.Imported, read object.Info, err error) {
	keeper, keeps := dst.(object.Keeper)
	in, err := open(from(ctx), src, o, keeps && opts.Tags == nil && keeper.Keeps(anyTags) == nil)
	if err != nil {
		return made, o, err
	}
	body := &steady{ctx: from(ctx), r: paced(ctx, in.Body), src: src, o: in.Info, moved: moved}
	defer func() {
		read = in.Info
		read.Size = body.n
		if closeErr := in.Body.Close(); err == nil {
			err = closeErr
		}
	}()
	if !keeps {
		attrs := in.Attrs
		if opts.Replace {
			attrs = opts.Attrs
		}
		made.Checksum = in.Checksum
		return made, o, dst.Put(into(ctx), o.Key, checksum.Reader(body, in.Checksum), in.Info.Size, attrs)
	}
	p := stored(opts)
	if !opts.Replace {
		tags := p.Tags
		p.Description = in.Description
		if tags != nil {
			p.Tags = tags
		}
	} else if opts.Tags == nil {
		p.Tags = in.Tags
	}
	p.Checksum, p.Modified = in.Checksum, o.Modified
	made, err = keeper.PutWith(into(ctx), o.Key, body, in.Info.Size, p)
	return made, o, err
}

// open opens the object of a listing, if it still is that one.
func open(ctx context.Context, src object.Store, o object.Info, tags bool) (*object.Opened, error) {
	if d, ok := src.(object.Describer); ok {
		from, err := d.Open(ctx, o, tags)
		if err == nil && o.Size >= 0 && from.Info.Size != o.Size {
			err = fmt.Errorf("%w: it has %d bytes, and had %d", object.ErrChanged, from.Info.Size, o.Size)
			err = errors.Join(err, from.Body.Close())
		}
		return from, err
	}
	r, info, err := src.Get(ctx, o.Key, 0, -1)
	if err != nil {
		return nil, err
	}
	if info.ETag != o.ETag || info.Size != o.Size {
		err = fmt.Errorf("%w: it has %d bytes and ETag %q, and had %d and %q", object.ErrChanged, info.Size, info.ETag, o.Size, o.ETag)
		return nil, errors.Join(err, r.Close())
	}
	return &object.Opened{Body: r, Info: info, Description: object.Description{Attrs: info.Attrs}}, nil
}

// steady reads an object that must be the same when it has been read: where a store's
// objects are files, somebody may write to one that is open. Its last byte is given only
// then, so that what was put together of two versions is never whole.
type steady struct {
	ctx   context.Context
	r     io.Reader
	src   object.Store
	o     object.Info
	moved *atomic.Int64
	n     int64
	same  bool
}

func (s *steady) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	s.moved.Add(int64(n))
	if s.o.Size < 0 || s.n < s.o.Size || s.same {
		return n, err
	}
	if _, local := s.src.(object.Local); local {
		now, err := s.src.Head(s.ctx, s.o.Key)
		if err != nil {
			return 0, err
		}
		if now.ETag != s.o.ETag {
			return 0, fmt.Errorf("%w while it was read", object.ErrChanged)
		}
	}
	s.same = true
	return n, err
}
