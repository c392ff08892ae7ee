package natsserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Cluster is a number of servers with routes between all of them, and one JetStream.
type Cluster struct {
	Nodes []*Server // n1, n2 and so on

	cleanup func() error
}

// StartCluster runs n servers until the test ends and waits until they have chosen
// their JetStream leader and all belong to it. With o.Namespaces, there must be n of them. All nodes share
// keys and authority.
func StartCluster(t testing.TB, n int, o Options) *Cluster {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	c, err := LaunchCluster(t.Context(), n, o)
	if err != nil {
		fatal(t, err)
	}
	t.Cleanup(func() {
		for _, s := range c.Nodes {
			closeAfter(t, s)
		}
	})
	return c
}

// LaunchCluster is StartCluster for programs: it runs until Close. ctx bounds the start.
func LaunchCluster(ctx context.Context, n int, o Options) (*Cluster, error) {
	if n < 2 {
		return nil, fmt.Errorf("natsserver: a cluster of %d: it needs two servers", n)
	}
	if len(o.Namespaces) > 0 && len(o.Namespaces) != n {
		return nil, fmt.Errorf("natsserver: a cluster of %d in %d namespaces: give one for each", n, len(o.Namespaces))
	}
	for try := 1; ; try++ {
		c, err := newCluster(n, o)
		if err != nil {
			return nil, err
		}
		err = c.start(ctx)
		if err == nil {
			return c, nil
		}
		taken := false
		for _, s := range c.Nodes {
			taken = taken || s.portTaken()
		}
		err = errors.Join(err, c.Close())
		if try == 3 || !taken {
			return nil, err
		}
	}
}

func newCluster(n int, o Options) (_ *Cluster, err error) {
	c := &Cluster{cleanup: func() error { return nil }}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "natsserver-")
		if err != nil {
			return nil, fmt.Errorf("natsserver: make the cluster's folder: %w", err)
		}
		o.Dir = dir
		c.cleanup = func() error { return os.RemoveAll(dir) }
	}
	var hosts []netip.Addr
	for i := range n {
		s, err := newServer(o, "n"+strconv.Itoa(i+1), i)
		if err != nil {
			return nil, err
		}
		c.Nodes = append(c.Nodes, s)
		hosts = append(hosts, s.place.host())
	}
	a, err := newAccess(o, o.Dir, hosts)
	if err != nil {
		return nil, err
	}
	name := rand.Text()
	for _, s := range c.Nodes {
		if err := s.configure(a, name, c.Nodes); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// start starts all nodes at once and waits for their leader, and until each node counts all of
// them: two can choose a leader before they have met the third, and if one of them is lost
// then, no two are left that know one another.
func (c *Cluster) start(ctx context.Context) error {
	errs := make([]error, len(c.Nodes))
	var all sync.WaitGroup
	for i, s := range c.Nodes {
		all.Go(func() { errs[i] = s.start(ctx) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if _, err := c.WaitLeader(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	for _, s := range c.Nodes {
		err := s.await(ctx, func(ctx context.Context) error {
			group, err := s.meta(ctx)
			online := 1
			for _, r := range group.Replicas {
				if !r.Offline {
					online++
				}
			}
			if err == nil && (group.Size != len(c.Nodes) || group.Leader == s.name && online != len(c.Nodes)) {
				err = fmt.Errorf("%s counts %d servers and sees %d", s.name, group.Size, online)
			}
			return err
		})
		if err != nil {
			return s.tell("wait until the cluster is whole:", err)
		}
	}
	return nil
}

// Close kills all nodes and removes the cluster's temporary folder.
func (c *Cluster) Close() error {
	var errs []error
	for _, s := range c.Nodes {
		errs = append(errs, s.Close())
	}
	errs = append(errs, c.cleanup())
	return errors.Join(errs...)
}

// URL holds the URLs of all nodes, with commas between them.
func (c *Cluster) URL() string { return c.join((*Server).URL) }

// AuthURL is URL with user and password, or the token, in it.
func (c *Cluster) AuthURL() string { return c.join((*Server).AuthURL) }

func (c *Cluster) join(url func(*Server) string) string {
	urls := make([]string, len(c.Nodes))
	for i, s := range c.Nodes {
		urls[i] = url(s)
	}
	return strings.Join(urls, ",")
}

// Node returns the server of that name, which NATS tells of as a stream's leader or
// replica; nil if there is none.
func (c *Cluster) Node(name string) *Server {
	for _, s := range c.Nodes {
		if s.name == name {
			return s
		}
	}
	return nil
}

// WaitLeader returns the leader of JetStream (of its meta group) as soon as more than
// half of the nodes name the same one, itself among them. After the loss of a leader
// that takes some seconds; on a machine that has ten times too much to do, half a minute. It
// waits a minute at most.
func (c *Cluster) WaitLeader(ctx context.Context) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	tick := time.NewTicker(5 * pollEvery)
	defer tick.Stop()
	for {
		leader, err := c.leader(ctx)
		if err == nil {
			return leader, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("natsserver: wait for the cluster's leader: %w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// leader counts the nodes' answers once. A node that does not run or is paused has none.
func (c *Cluster) leader(ctx context.Context) (*Server, error) {
	votes := make([]string, len(c.Nodes))
	errs := make([]error, len(c.Nodes))
	var all sync.WaitGroup
	for i, s := range c.Nodes {
		all.Go(func() {
			if s.child.running() {
				var group metaGroup
				group, errs[i] = s.meta(ctx)
				votes[i] = group.Leader
			}
		})
	}
	all.Wait()
	names := make([]string, len(c.Nodes))
	for i, s := range c.Nodes {
		names[i] = s.name
	}
	if i := elected(names, votes); i >= 0 {
		return c.Nodes[i], nil
	}
	return nil, errors.Join(append(errs, fmt.Errorf("the nodes name %q as leader", votes))...)
}

// elected is the index of the node that more than half of all vote for, itself among
// them, or -1. A leader that is cut off still votes for itself for some time, and the
// others for it until they notice.
func elected(names, votes []string) int {
	count := make(map[string]int)
	for _, name := range votes {
		count[name]++
	}
	for i, name := range names {
		if votes[i] == name && 2*count[name] > len(names) {
			return i
		}
	}
	return -1
}
