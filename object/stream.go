package object

import (
	"context"
	"io"
	"time"
)

// Description is what a store keeps with an object beside its bytes.
type Description struct {
	Attrs
	ContentEncoding    string
	ContentDisposition string
	ContentLanguage    string
	Expires            string // as HTTP writes it
	// Metadata is the user's: names of small letters, without a store's prefix.
	Metadata map[string]string
	Tags     map[string]string
}

// Opened is an object under a reader.
type Opened struct {
	// Body is the object's bytes. They are not compared with Checksum.
	Body io.ReadCloser
	Info Info
	Description
	// Checksum is that of all bytes: "CRC64NVME:…" (see package checksum); "" if the store
	// gives none.
	Checksum string
}

// Describer is a Store that tells more of an object than Info has.
type Describer interface {
	// Open is Get of a whole object, with all that the store keeps with it. It sends one
	// request; one more if tags are asked for and there are any.
	//
	// src is as a listing yields it. The error wraps [ErrChanged] if the object is not that
	// one any more, and [io/fs.ErrNotExist] if it is gone.
	Open(ctx context.Context, src Info, tags bool) (*Opened, error)
}

// Keeper is a Store that stores more with an object than Put does.
type Keeper interface {
	// Keeps says, permanently, which of the options the store cannot do, and nil if it can
	// do all. It sends no request. Checksum and Modified are never in the way.
	Keeps(opts PutOptions) error
	// PutWith is Put. If the bytes do not have opts.Checksum, nothing is stored, and the error
	// wraps a *checksum.Error.
	PutWith(ctx context.Context, key string, body io.Reader, size int64, opts PutOptions) (Imported, error)
}

// PutOptions say what an object is stored with. The zero value is a plain Put.
type PutOptions struct {
	Description
	StorageClass string // "" means the store's default
	Encryption   string // "" or AES256, aws:kms, aws:kms:dsse
	KMSKey       string // of Encryption aws:kms
	ACL          string // canned; "" means none
	// IfNone makes it fail with a permanent error wrapping [io/fs.ErrExist] where there is an
	// object already, perhaps before body is read. Of several at once for one key, one
	// succeeds.
	IfNone bool
	// Modified is the time that the object gets where the store lets that be chosen: a file's.
	// Zero means now.
	Modified time.Time
	// Checksum is what the bytes must have: "CRC64NVME:…"; "" means that nobody knows. One
	// that cannot be computed here is not looked at.
	Checksum string
}

// Checksummer is a Store that keeps checksums of its objects.
type Checksummer interface {
	// Checksum returns that of all bytes of an object: "CRC64NVME:…", and "" if the store has
	// none, or only one of the object's parts. Info is the object's.
	Checksum(ctx context.Context, key string) (string, Info, error)
}
