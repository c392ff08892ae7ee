// Package pattern makes regular expressions that cost nothing where they are not used: a
// program of many commands would compile all of them whenever it starts.
package pattern

import (
	"regexp"
	"sync"
)

// Of returns a function that compiles an expression when it is called first. It panics
// then if the expression is wrong.
func Of(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
