package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"myrmidon"
)

// needs makes a flag required, of which the hint shows how it is given. What cobra says itself is
// no error of usage.
func needs(c *cobra.Command, flag, hint string) {
	mustComplete(c.MarkFlagRequired(flag))
	c.PreRunE = func(c *cobra.Command, _ []string) error {
		if c.Flags().Changed(flag) {
			return nil
		}
		return missing(flag, hint)
	}
}

// missing is the error of a flag that a command cannot do without; the hint shows how it is given.
func missing(flag, hint string) error {
	return usage(myrmidon.WithHint(fmt.Errorf("--%s is missing", flag), hint))
}
