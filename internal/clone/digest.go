package clone

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"hash/crc64"
	"io"
	"sync/atomic"

	"myrmidon/object"
)

// nvme is the polynomial of CRC64NVME, which S3 calls so (Rocksoft; reversed).
var nvme = crc64.MakeTable(0x9a6c9329ac4bc9b5)

// digest reads an object and returns its CRC64NVME as S3 writes it, in base64.
func digest(ctx context.Context, s object.Store, key string, moved *atomic.Int64) (sum string, err error) {
	r, _, err := s.Get(ctx, key, 0, -1)
	if err != nil {
		return "", err
	}
	defer func() {
		if closeErr := r.Close(); err == nil {
			err = closeErr
		}
	}()
	h := crc64.New(nvme)
	n, err := io.Copy(h, paced(ctx, r))
	moved.Add(n)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, h.Sum64())), nil
}
