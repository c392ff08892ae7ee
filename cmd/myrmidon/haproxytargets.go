package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"myrmidon"
	"myrmidon/haproxy"
	"myrmidon/internal/pattern"
)

// maxHAProxyFile bounds files of targets and of rules.
const maxHAProxyFile = 1 << 20

// listedTarget is an entry of a file of targets.
type listedTarget struct {
	Address string            `yaml:"address"`
	Name    string            `yaml:"name"`
	Labels  map[string]string `yaml:"labels"`
	Groups  []string          `yaml:"groups"`
}

// labelName is what Prometheus takes as the name of a label.
var labelName = pattern.Of(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// ourLabels are those that have a meaning already.
var ourLabels = []string{"process", "target", "proxy", "server", "listener", "state", "code"}

func readTargets(path string, groups []string) ([]listedTarget, error) {
	var file struct {
		Targets []listedTarget `yaml:"targets"`
	}
	if err := readYAML(path, &file); err != nil {
		return nil, err
	}
	var out []listedTarget
	found := make(map[string]bool)
	for i, t := range file.Targets {
		if t.Address == "" {
			return nil, fmt.Errorf("%s: target %d has no address", path, i+1)
		}
		for name := range t.Labels {
			if !labelName().MatchString(name) || strings.HasPrefix(name, "__") || slices.Contains(ourLabels, name) {
				return nil, fmt.Errorf("%s: target %d: %q cannot be the name of a label: letters, digits and _, and none of %s",
					path, i+1, name, strings.Join(ourLabels, ", "))
			}
		}
		takes := len(groups) == 0
		for _, g := range t.Groups {
			found[g] = true
			takes = takes || slices.Contains(groups, g)
		}
		if takes {
			out = append(out, t)
		}
	}
	for _, g := range groups {
		if !found[g] {
			return nil, usage(fmt.Errorf("%s: no target is in the group %q", path, g))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s names no target", path)
	}
	return out, nil
}

// readYAML reads a small file into v. Keys that are not known are errors, with their line.
func readYAML(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxHAProxyFile+1))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if len(data) > maxHAProxyFile {
		return fmt.Errorf("%s: more than %d bytes", path, maxHAProxyFile)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%s: %w", path, plainYAML(err))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: a second document follows the first", path)
	}
	return nil
}

// readRules reads overrides of rules.
func readRules(path string) (*haproxy.Rules, error) {
	var file struct {
		Rules []struct {
			Field string   `yaml:"field"`
			Types []string `yaml:"types"`
			Rule  string   `yaml:"rule"`
			Note  string   `yaml:"note"`
		} `yaml:"rules"`
	}
	if err := readYAML(path, &file); err != nil {
		return nil, err
	}
	var overrides []haproxy.Override
	for i, r := range file.Rules {
		o := haproxy.Override{Field: r.Field, Note: r.Note}
		var err error
		if o.Rule, err = haproxy.ParseRule(r.Rule); err != nil {
			return nil, fmt.Errorf("%s: rule %d: %w", path, i+1, err)
		}
		for _, name := range r.Types {
			t, err := haproxy.ParseType(name)
			if err != nil {
				return nil, fmt.Errorf("%s: rule %d: %w", path, i+1, err)
			}
			o.Types = append(o.Types, t)
		}
		overrides = append(overrides, o)
	}
	rules, err := haproxy.DefaultRules().With(overrides...)
	if err != nil {
		return nil, myrmidon.WithHint(fmt.Errorf("%s: %w", path, err), "myrmidon haproxy fields lists the fields and their rules")
	}
	return rules, nil
}

// find expands patterns and names into targets, and notes those that stand for nothing.
// Several entries for one address are one.
func (p *pool) find(ctx context.Context) ([]haproxy.Target, error) {
	ctx, cancel := context.WithTimeout(ctx, p.flags.timeout)
	defer cancel()
	p.missing = nil
	p.labels = make(map[string]map[string]string)
	entries := slices.Clone(p.listed)
	for _, a := range p.args {
		entries = append(entries, listedTarget{Address: a})
	}
	var out []haproxy.Target
	seen := make(map[string]bool)
	for _, e := range entries {
		targets, err := e.expand(ctx)
		if err != nil {
			var exit *exitError
			if errors.As(err, &exit) {
				return nil, err
			}
			p.missing = append(p.missing, err)
			continue
		}
		for _, t := range targets {
			if seen[t.Address] {
				continue
			}
			seen[t.Address] = true
			p.labels[t.Name] = e.Labels
			out = append(out, t)
		}
	}
	return out, nil
}

// expand returns the targets that an entry stands for, by names that stay the same.
func (e *listedTarget) expand(ctx context.Context) ([]haproxy.Target, error) {
	a := e.Address
	name := func(own string, several bool) string {
		switch {
		case e.Name == "":
			return own
		case several:
			return e.Name + " (" + own + ")"
		}
		return e.Name
	}
	if host, port, ok := hostPort(a); ok {
		if _, err := netip.ParseAddr(host); err == nil {
			return []haproxy.Target{{Name: name(a, false), Address: a}}, nil
		}
		addrs, err := resolve(ctx, host)
		if err != nil {
			return nil, fmt.Errorf("haproxy: %s: %w", a, err)
		}
		var out []haproxy.Target
		for _, ip := range addrs {
			own := net.JoinHostPort(ip.String(), port)
			if e.Name == "" {
				own = a + " (" + ip.String() + ")"
			}
			out = append(out, haproxy.Target{Name: name(own, len(addrs) > 1), Address: "tcp://" + net.JoinHostPort(ip.String(), port)})
		}
		return out, nil
	}
	path := strings.TrimPrefix(strings.TrimPrefix(a, "unix:"), "//")
	if (strings.Contains(a, "://") && !strings.HasPrefix(a, "unix:")) || !strings.ContainsAny(path, "*?[") {
		if e.Name == "" && (strings.HasPrefix(a, "http://") || strings.HasPrefix(a, "https://")) {
			return []haproxy.Target{{Name: pageName(a), Address: a}}, nil
		}
		return []haproxy.Target{{Name: name(a, false), Address: a}}, nil
	}
	if _, err := os.Lstat(path); err == nil {
		return []haproxy.Target{{Name: name(a, false), Address: path}}, nil // it is called so
	}
	paths, err := filepath.Glob(path)
	if err != nil {
		return nil, usage(fmt.Errorf("the pattern %q: %w", path, err))
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("haproxy: no socket is called like %s: is HAProxy running?", path)
	}
	var out []haproxy.Target
	for _, p := range paths {
		out = append(out, haproxy.Target{Name: name(p, len(paths) > 1), Address: p})
	}
	return out, nil
}

// pageName is the URL of a stats page without its password.
func pageName(a string) string {
	scheme, rest, _ := strings.Cut(a, "://")
	host, path, _ := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		host = host[i+1:]
	}
	path, _, _ = strings.Cut(path, "?")
	return scheme + "://" + host + "/" + path
}

// hostPort takes the address of a stats socket on TCP apart.
func hostPort(a string) (host, port string, ok bool) {
	rest, tcp := strings.CutPrefix(a, "tcp://")
	if !tcp && (strings.Contains(a, "/") || strings.HasPrefix(a, "unix:")) {
		return "", "", false
	}
	host, port, err := net.SplitHostPort(rest)
	return host, port, err == nil && host != ""
}

// resolve returns the addresses of a name in a fixed order: those of IPv4 if it has any.
func resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var four, six []netip.Addr
	for _, ip := range all {
		if ip = ip.Unmap(); ip.Is4() {
			four = append(four, ip)
		} else {
			six = append(six, ip)
		}
	}
	if len(four) == 0 {
		four = six
	}
	slices.SortFunc(four, netip.Addr.Compare)
	return slices.Compact(four), nil
}
