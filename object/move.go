package object

import (
	"context"
	"time"
)

// MaxPage is the most objects that a page has, which is what S3 gives for one request.
const MaxPage = 1000

// Pager is a Store that lists page by page, beginning anywhere: what many listers of one
// bucket share the work by. See [Walk].
type Pager interface {
	// Page returns the objects whose keys begin with prefix and are greater than after,
	// in byte order: at most most of them, or MaxPage if that is 0. more reports whether
	// others may follow; a page may be empty and yet have more. after may be any bytes.
	Page(ctx context.Context, prefix, after string, most int) (page []Info, more bool, err error)
}

// Importer is a Store that copies objects of other stores, without sending their bytes
// through this process: a bucket, from the buckets that its service and account reach.
type Importer interface {
	// CanImport reports whether Import copies from a store at all. It sends no request.
	CanImport(from Store) bool
	// Import makes to an object with the bytes of src, whole or not at all. The error
	// wraps [ErrChanged] if src is not the object that it was (see [Info.ETag]), and
	// [io/fs.ErrNotExist] if it is gone.
	Import(ctx context.Context, from Store, src Info, to string, opts ImportOptions) (Imported, error)
}

// ImportOptions say what the copy is like. The zero value copies attributes, user
// metadata and tags and takes the destination's defaults for the rest.
type ImportOptions struct {
	// Replace stores the copy with Attrs and Metadata instead of the source's.
	Replace  bool
	Attrs    Attrs
	Metadata map[string]string
	// Tags replaces the source's tags, if it is not nil.
	Tags         map[string]string
	StorageClass string // "" means the destination's default
	Encryption   string // "" or AES256, aws:kms, aws:kms:dsse
	KMSKey       string // of Encryption aws:kms
	ACL          string // canned: "private", "bucket-owner-full-control"; "" means none
	// IfNone makes the copy fail with an error wrapping [io/fs.ErrExist] where there is
	// an object already.
	IfNone bool
}

// Imported is what an import made.
type Imported struct {
	ETag     string
	Checksum string // as the store writes it: "CRC64NVME:…"; "" if it gives none
	Parts    int    // 1 for a copy with one request
	Modified time.Time
}
