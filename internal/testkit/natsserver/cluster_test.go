package natsserver_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"myrmidon/internal/testkit/long"
	"myrmidon/internal/testkit/natsserver"
	"myrmidon/internal/testkit/netfault"
)

func TestAClusterOutlivesItsLeader(t *testing.T) {
	long.Test(t)
	c := natsserver.StartCluster(t, 3, natsserver.Options{Credentials: true, TLS: true})
	leader, err := c.WaitLeader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := c.Nodes[0]
	_, js := connect(t, c.URL(), nats.RootCAs(first.CAFile()), nats.UserCredentials(first.CredentialsFile()))
	stream(t, js, 3, 3)
	if err := leader.Kill(); err != nil {
		t.Fatal(err)
	}
	next, err := c.WaitLeader(limit(t, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if next == leader {
		t.Fatalf("%s still leads, and is dead", leader.Name())
	}
	publish(t, js)
	if err := leader.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := leader.WaitHealthy(limit(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n := stored(t, js); n < 4 {
		t.Errorf("%d messages are stored, want 4", n)
	}
}

func TestAClusterLosesAMemberWhoseCableIsPulled(t *testing.T) {
	long.Test(t)
	if err := netfault.Available(); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	network, err := netfault.NewNet(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Error(err)
		}
	})
	var spaces []*netfault.NS
	for id := range 3 {
		s, err := network.Join(id + 1)
		if err != nil {
			t.Fatal(err)
		}
		spaces = append(spaces, s)
	}
	c := natsserver.StartCluster(t, 3, natsserver.Options{Namespaces: spaces})
	leader, err := c.WaitLeader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pid := leader.PID()
	for i, s := range c.Nodes {
		if s == leader {
			if err := spaces[i].Cut(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var next *natsserver.Server
	for next, err = c.WaitLeader(t.Context()); next == leader; next, err = c.WaitLeader(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	if leader.PID() != pid {
		t.Error("the old leader died; it was only to be cut off")
	}
	_, js := connect(t, next.URL())
	stream(t, js, 1, 1)
}

func TestAClusterIsRefusedWhereItCannotBe(t *testing.T) {
	for _, tt := range []struct {
		name    string
		n       int
		options natsserver.Options
	}{
		{"one server", 1, natsserver.Options{}},
		{"fewer namespaces than servers", 3, natsserver.Options{Namespaces: make([]*netfault.NS, 2)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if c, err := natsserver.LaunchCluster(t.Context(), tt.n, tt.options); err == nil {
				c.Close()
				t.Error("it started")
			}
		})
	}
}
