// Command floor reads the statistics of HAProxy processes, all at once, and does nothing
// with them: what no program that presents them can be faster than.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

func main() {
	var wg sync.WaitGroup
	errs := make([]error, len(os.Args[1:]))
	for i, path := range os.Args[1:] {
		wg.Go(func() { errs[i] = read(path) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			fmt.Fprintf(os.Stderr, "floor: %v\n", err)
			os.Exit(1)
		}
	}
}

func read(path string) error {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "show info;show stat\n"); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	n := 0
	for {
		k, err := conn.Read(buf)
		n += k
		if err == io.EOF && n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
