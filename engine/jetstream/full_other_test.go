//go:build !linux

package jetstream_test

import "fmt"

func fullDisk(string) int {
	fmt.Println("cannot mount: this is not Linux")
	return 1
}
