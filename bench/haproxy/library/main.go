// Command library presents HAProxy processes as one, by package haproxy alone: what a
// program pays that imports it.
package main

import (
	"context"
	"fmt"
	"os"

	"myrmidon/haproxy"
)

func main() {
	var cfg haproxy.Config
	for _, path := range os.Args[1:] {
		cfg.Targets = append(cfg.Targets, haproxy.Target{Address: path})
	}
	s, err := haproxy.ReadAll(context.Background(), cfg)
	if err == nil && s.Failed() > 0 {
		err = fmt.Errorf("%d targets failed", s.Failed())
	}
	if err == nil {
		err = s.Table.View(haproxy.Filter{}).WriteCSV(os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "library: %v\n", err)
		os.Exit(1)
	}
}
