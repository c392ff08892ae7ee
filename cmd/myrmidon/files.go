package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// writeWhole makes or replaces a file by what write gives it: whole, or not at all.
func writeWhole(file string, write func(io.Writer) error) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(file), ".myrmidon-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	out := bufio.NewWriter(tmp)
	if err = write(out); err == nil {
		err = out.Flush()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}

// replaceFile writes a file so that a reader sees the old one or the new one, also after a loss of
// power. What a process that was killed leaves of it is overwritten by the next one.
func replaceFile(file string, data []byte) error {
	out, err := os.OpenFile(file+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = out.Write(data)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return err
	}
	return os.Rename(file+".part", file)
}
