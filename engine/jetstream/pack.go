package jetstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/klauspost/compress/s2"

	"myrmidon/engine"
)

// Long jobs and events are stored packed: those that name a hundred objects say the same
// words for each. The server copies a message several times and keeps what it stored in the
// last seconds in memory, which costs more than packing does.

const (
	// packFrom is the length of JSON in bytes from which on it is packed.
	packFrom = 2 << 10
	// packed is the first byte of what is packed. JSON begins with none like it.
	packed = 0xff
)

// pack returns JSON as it is stored: a byte that says so and the JSON in S2's block format
// (github.com/klauspost/compress/s2), or as it is where that is not shorter.
func pack(data []byte) []byte {
	if len(data) < packFrom || len(data) > engine.MaxMessage {
		return data
	}
	room := rooms.Get().(*[]byte)
	defer rooms.Put(room)
	if need := 1 + s2.MaxEncodedLen(len(data)); cap(*room) < need {
		*room = make([]byte, need)
	}
	out := (*room)[:cap(*room)]
	out[0] = packed
	n := len(s2.Encode(out[1:], data))
	if 1+n >= len(data) {
		return data
	}
	return bytes.Clone(out[:1+n])
}

// rooms are those in which messages are packed.
var rooms = sync.Pool{New: func() any { return new([]byte) }}

// unpack returns the JSON that pack was given. Others may write to the broker: what would
// be longer than a message may be is an error.
func unpack(data []byte) ([]byte, error) {
	if len(data) == 0 || data[0] != packed {
		return data, nil
	}
	n, err := s2.DecodedLen(data[1:])
	if err == nil && n > engine.MaxMessage {
		err = fmt.Errorf("%d bytes are more than the %d of a message", n, engine.MaxMessage)
	}
	if err == nil {
		data, err = s2.Decode(nil, data[1:])
	}
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return data, nil
}

// decode reads what pack was given into v.
func decode(data []byte, v any) error {
	data, err := unpack(data)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}
