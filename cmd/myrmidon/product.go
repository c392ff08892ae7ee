package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"myrmidon"
	"myrmidon/internal/transcode"
)

// maxProduct bounds a product file; the default one has 700 bytes.
const maxProduct = 1 << 20

func (a *app) productCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "product [FILE.yaml]",
		GroupID: "other",
		Short:   "Print the default ladder as YAML, or check a file",
		Long: `Print the default product, the ladder of sizes that transcode makes, as a YAML file to
start from. With a file: check it and print its hash. A product is immutable: a changed one
has another hash, and its streams have other names.`,
		Example: "  myrmidon product > ladder.yaml\n  myrmidon product ladder.yaml",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(_ *cobra.Command, in []string) error {
			p := transcode.Default()
			if len(in) > 0 {
				var err error
				if p, err = readProduct(in[0]); err != nil {
					return err
				}
			}
			switch {
			case a.json:
				a.printJSON(map[string]any{"hash": p.Hash(), "product": p})
			case len(in) > 0:
				fmt.Fprintf(a.stdout, "%s is a product of %s, hash %s\n", in[0], plural(len(p.Rungs), "rung"), p.Hash())
			default:
				enc := yaml.NewEncoder(a.stdout)
				enc.SetIndent(2)
				return errors.Join(enc.Encode(p), enc.Close())
			}
			return nil
		},
	}
	return c
}

// readProduct reads a product file. Keys that are not known are errors, with their line.
func readProduct(path string) (transcode.Product, error) {
	var p transcode.Product
	f, err := os.Open(path)
	if err != nil {
		return p, myrmidon.WithHint(fmt.Errorf("product: %w", err), "myrmidon product prints one to start from")
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxProduct+1))
	if err != nil {
		return p, fmt.Errorf("product %s: %w", path, err)
	}
	if len(data) > maxProduct {
		return p, fmt.Errorf("product %s: more than %d bytes", path, maxProduct)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&p); err != nil {
		return p, myrmidon.WithHint(fmt.Errorf("product %s: %w", path, plainYAML(err)), "myrmidon product prints one to compare with")
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return p, fmt.Errorf("product %s: a second document follows the first; one file is one product", path)
	}
	if err := p.Validate(); err != nil {
		return p, myrmidon.WithHint(fmt.Errorf("product %s: %w", path, err), "myrmidon product prints one to compare with")
	}
	return p, nil
}

// plainYAML words the errors of the YAML library for people who do not know our types:
// "line 2: segmnet is not a known key".
func plainYAML(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the file is empty")
	}
	var typed *yaml.TypeError
	if !errors.As(err, &typed) {
		return err
	}
	var lines []string
	for _, e := range typed.Errors {
		if at, key, ok := strings.Cut(e, ": field "); ok {
			if key, _, ok = strings.Cut(key, " not found in type"); ok {
				e = fmt.Sprintf("%s: %s is not a known key", at, key)
			}
		}
		lines = append(lines, e)
	}
	return errors.New(strings.Join(lines, "; "))
}
