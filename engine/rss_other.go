//go:build !linux

package engine

// ownRSS is unknown here: there is no /proc.
func ownRSS() int64 { return 0 }
