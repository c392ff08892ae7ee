package engine

import (
	"context"
	"errors"
	"time"
)

// Fleet is a Backend that many processes share, and what they know of one another.
//
//	run/<run>      what the owner last knew (Info): replaced each second, which is its lease
//	order/<run>    what workers need of a run (Order)
//	worker/<id>    who is there (WorkerInfo), gone a minute after it was last seen
//
// Topics: own.<run> is asked for what the owner of a run does (cancel, pause, …),
// doing.<run> tells of jobs under way, worker.<id> is asked to drain.
type Fleet interface {
	Backend
	Registry
	Post
	// Durability is the level that the fleet's broker advertises.
	Durability() string
	// Where names the broker for people, without its secrets.
	Where() string
}

// ErrConflict says that an entry was changed by another process meanwhile.
var ErrConflict = errors.New("engine: another process has changed this entry")

// ErrNobody says that nobody answers to a topic.
var ErrNobody = errors.New("engine: nobody answers")

// Registry holds small values that change often. Keys are as those of Blobs.
type Registry interface {
	// Entry returns an entry. The error wraps fs.ErrNotExist if there is none.
	Entry(ctx context.Context, key string) (Entry, error)
	// Put stores value if the entry's revision is still rev, 0 for an entry that is not
	// there, and returns the new revision; else ErrConflict.
	Put(ctx context.Context, key string, value []byte, rev uint64) (uint64, error)
	// Forget removes an entry; one that is not there is no error.
	Forget(ctx context.Context, key string) error
	// Entries returns the entries whose keys have a prefix, in order of key.
	Entries(ctx context.Context, prefix string) ([]Entry, error)
	// Watch calls fn with each entry whose key has a prefix, once with the zero Entry when
	// it has told all, and then with each change, until ctx ends. An entry without value
	// was removed.
	Watch(ctx context.Context, prefix string, fn func(Entry)) error
}

// Entry is a value in a Registry.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64
	// Age is how long ago the entry was stored, by the registry's own clock: machines'
	// clocks need not agree. Only Entry and Entries fill it in.
	Age time.Duration
}

// Post carries messages between the processes of a fleet. Topics are tokens separated by
// dots; messages are at most MaxMessage bytes.
type Post interface {
	// Tell sends data to whoever listens; it may be lost.
	Tell(ctx context.Context, topic string, data []byte) error
	// Ask returns the first answer; ErrNobody if nobody listens.
	Ask(ctx context.Context, topic string, data []byte) ([]byte, error)
	// Answer calls fn with what is told or asked; what it returns is the answer. Calls may
	// run at once. After stop has returned, no more begin.
	Answer(topic string, fn func(data []byte) []byte) (stop func(), err error)
}
