package limit

import (
	"fmt"
	"strconv"
	"strings"
)

// Highest is the highest maximum that can be configured: the number of ports from
// which one address can connect to another.
const Highest = 65535

// MaxHint says how to write a value for [ParseMax].
const MaxHint = "write KIND=N or KIND@DESTINATION=N, each once, such as clone.copy=200 or clone.copy@s3://bucket=50"

// ParseMax turns the values of a flag into [Config].Max. A value is KIND=N or
// KIND@DESTINATION=N, as in clone.copy=200 and clone.copy@s3://bucket=50; N is 1 to
// [Highest]. KIND=N holds for each destination of the kind that has no value of its
// own, for each of them apart. The number follows the last "=", since addresses may
// hold one. The error names the value; [MaxHint] is the hint to go with it.
func ParseMax(values []string) (map[string]int, error) {
	out := make(map[string]int, len(values))
	for _, v := range values {
		name, n, err := parseMax(v)
		if err == nil {
			if _, twice := out[name]; twice {
				err = fmt.Errorf("%q has two limits", name)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("limit: read %q: %w", v, err)
		}
		out[name] = n
	}
	return out, nil
}

func parseMax(v string) (name string, n int, err error) {
	i := strings.LastIndexByte(v, '=')
	if i < 0 {
		return "", 0, fmt.Errorf(`no "="`)
	}
	name = v[:i]
	kind, destination, one := strings.Cut(name, "@")
	switch {
	case kind == "":
		return "", 0, fmt.Errorf("no kind of job")
	case strings.ContainsFunc(kind, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789._-", r)
	}):
		return "", 0, fmt.Errorf("%q is no kind of job", kind)
	case one && destination == "":
		return "", 0, fmt.Errorf(`no destination after "@"`)
	}
	n, err = strconv.Atoi(v[i+1:])
	if err != nil || n < 1 || n > Highest {
		return "", 0, fmt.Errorf("%q is no number from 1 to %d", v[i+1:], Highest)
	}
	return name, n, nil
}
