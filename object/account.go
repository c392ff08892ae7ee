package object

import "context"

// Verb is a kind of request to a service, as price lists tell them apart.
type Verb uint8

// The kinds of requests.
const (
	VerbList     Verb = iota
	VerbHead          // of an object
	VerbGet           // of an object, a part or tags
	VerbPut           // of an object or a part
	VerbCopy          // of an object, by the service
	VerbPartCopy      // of a part, by the service
	VerbPost          // what begins and completes uploads, and writes tags
	VerbDelete        // of objects, one by one or by the thousand, and of uploads
	Verbs             // how many kinds there are
)

var verbNames = [Verbs]string{"list", "head", "get", "put", "copy", "part-copy", "post", "delete"}

// String returns the name in reports: "list", "part-copy".
func (v Verb) String() string {
	if v >= Verbs {
		return "unknown"
	}
	return verbNames[v]
}

// Account is told of each request that a store sends on behalf of a context, failed
// attempts included, and may hold it up. Stores that send none tell nothing. Its methods
// are called from many goroutines.
type Account interface {
	// Wait returns when another request may be sent, or with ctx's error.
	Wait(ctx context.Context) error
	// Sent counts a request that is being sent.
	Sent(v Verb)
}

type accountKey struct{}

// accounts are those of a context: own of the store that is called, from of the store
// that it copies from.
type accounts struct{ own, from Account }

// WithAccounts returns a context whose requests are told to own, and those that an
// [Importer] sends to the store that it copies from to from.
func WithAccounts(ctx context.Context, own, from Account) context.Context {
	return context.WithValue(ctx, accountKey{}, accounts{own, from})
}

// AccountOf returns the account of ctx's requests, nil if there is none.
func AccountOf(ctx context.Context) Account {
	a, _ := ctx.Value(accountKey{}).(accounts)
	return a.own
}

// FromAccount returns the context for what an [Importer] asks of the store that it copies
// from.
func FromAccount(ctx context.Context) context.Context {
	a, ok := ctx.Value(accountKey{}).(accounts)
	if !ok {
		return ctx
	}
	return WithAccounts(ctx, a.from, a.from)
}
