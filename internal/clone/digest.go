package clone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"

	"myrmidon"
	"myrmidon/internal/checksum"
	"myrmidon/object"
)

// verify compares an object of both stores by its bytes. With sums it asks the stores for
// checksums first, and reads only what has none of the same kind.
func verify(ctx context.Context, src, dst object.Store, o object.Info, sums bool, moved *atomic.Int64) (Evidence, error) {
	var a, b string
	if sums {
		var err error
		if a, err = kept(from(ctx), src, o.Key); err != nil {
			return Evidence{}, gone(o.Key, fmt.Errorf("verify: ask the source: %w", err))
		}
		if b, err = kept(into(ctx), dst, o.Key); err != nil {
			return Evidence{}, lacking(o.Key, fmt.Errorf("verify: ask the destination: %w", err))
		}
	}
	how := "checksum"
	name, _ := checksum.Split(a)
	if other, _ := checksum.Split(b); name == "" {
		name = other
	} else if other != name {
		b = ""
	}
	if name == "" {
		name = checksum.CRC64NVME
	}
	var err error
	if a == "" {
		how = "read"
		if a, err = digest(from(ctx), src, o.Key, name, moved); err != nil {
			return Evidence{}, gone(o.Key, fmt.Errorf("verify: read the source: %w", err))
		}
	}
	if b == "" {
		how = "read"
		if b, err = digest(into(ctx), dst, o.Key, name, moved); err != nil {
			return Evidence{}, lacking(o.Key, fmt.Errorf("verify: read the destination: %w", err))
		}
	}
	if a != b {
		return Evidence{}, myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%q differs: %s in the source, %s in the destination", o.Key, a, b), "run the clone again with --all"))
	}
	return Evidence{Action: "verify", Source: a, Destination: b, How: how}, nil
}

// lacking says what it means if the destination does not have the object.
func lacking(key string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return myrmidon.Permanent(myrmidon.WithHint(fmt.Errorf("%q is not in the destination", key), "run the clone again"))
	}
	return err
}

// kept returns the checksum that a store keeps of an object, "" if it keeps none that can be
// compared.
func kept(ctx context.Context, s object.Store, key string) (string, error) {
	c, ok := s.(object.Checksummer)
	if !ok {
		return "", nil
	}
	sum, _, err := c.Checksum(ctx, key)
	if name, _ := checksum.Split(sum); err != nil || name == "" {
		return "", err
	}
	return sum, nil
}

// digest reads an object and returns its checksum of a name.
func digest(ctx context.Context, s object.Store, key, name string, moved *atomic.Int64) (sum string, err error) {
	r, _, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return "", err
	}
	defer func() {
		if closeErr := r.Close(); err == nil {
			err = closeErr
		}
	}()
	h := checksum.New(name)
	n, err := io.Copy(h, paced(ctx, r))
	moved.Add(n)
	if err != nil {
		return "", err
	}
	return checksum.Sum(name, h), nil
}
