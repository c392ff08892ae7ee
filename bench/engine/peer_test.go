package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// role names the variable that makes this test binary play a program of RabbitMQ's.
const role = "BENCH_ENGINE_ROLE"

// TestPlay is no test: the scripts of plays run it in a process of its own.
func TestPlay(t *testing.T) {
	ask := make(chan os.Signal, 1)
	signal.Notify(ask, syscall.SIGTERM)
	switch os.Getenv(role) {
	case "":
	case "epmd":
		serve(t, os.Getenv("ERL_EPMD_PORT"), "")
		<-ask
	case "server":
		text, err := os.ReadFile(os.Getenv("RABBITMQ_CONFIG_FILE"))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "127.0.0.1:")
		port, _, _ := strings.Cut(rest, "\n")
		if err := os.WriteFile("environment", []byte(strings.Join(os.Environ(), "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		serve(t, port, "\x01")
		<-ask
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("deaf")
		time.Sleep(time.Minute)
	}
}

// serve answers whatever comes to a port of 127.0.0.1, if there is an answer.
func serve(t *testing.T, port, answer string) {
	l, err := net.Listen("tcp4", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, answer) // a caller that has gone reads nothing
			c.Close()
		}
	}()
}

// script writes a program of the shell and returns its path.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// plays is a program that this test binary plays.
func plays(t *testing.T, as string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return script(t, fmt.Sprintf("%s=%s exec '%s' -test.run '^TestPlay$'", role, as, self))
}

func TestANodeIsStartedApartFromTheMachinesOwnAndStopped(t *testing.T) {
	t.Setenv("RABBITMQ_NODENAME", "rabbit@production")
	t.Setenv("RABBITMQ_PLUGINS_DIR", "/production") // which nodeEnv does not set
	t.Setenv("ERL_EPMD_PORT", "4369")
	dir := t.TempDir()
	r, err := startNode(t.Context(), dir, plays(t, "server"), plays(t, "epmd"), "load")
	if err != nil {
		t.Fatal(err)
	}
	node, epmd := r.node, r.epmd
	env, err := os.ReadFile(filepath.Join(dir, "environment"))
	if err != nil {
		t.Fatal(err)
	}
	for _, banned := range []string{"production", "ERL_EPMD_PORT=4369"} {
		if strings.Contains(string(env), banned) {
			t.Errorf("%s has reached the node", banned)
		}
	}
	for _, name := range []string{"RABBITMQ_MNESIA_BASE=", "RABBITMQ_LOG_BASE=", "RABBITMQ_CONF_ENV_FILE=", "RABBITMQ_ENABLED_PLUGINS_FILE=", "HOME="} {
		if !strings.Contains(string(env), "\n"+name+dir) && !strings.HasPrefix(string(env), name+dir) {
			t.Errorf("%s is not below the node's folder", name)
		}
	}
	if node.exited() || epmd.exited() {
		t.Error("a process has ended before stop")
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if !node.exited() || !epmd.exited() {
		t.Error("a process has outlived stop")
	}
	if err := r.stop(); err != nil {
		t.Errorf("stopped again: %v", err)
	}
	if _, err := r.round(t.Context(), 1); err == nil {
		t.Error("a node that was stopped took a round")
	}
}

func TestANodeThatDoesNotStart(t *testing.T) {
	for _, tt := range []struct {
		name         string
		server, epmd string
		dir          string
		cancelled    bool
		want         string
	}{
		{name: "a node that ends is quoted", server: script(t, "echo no disc >&2; exit 78"), epmd: plays(t, "epmd"), want: "no disc"},
		{name: "epmd that ends is quoted", server: plays(t, "server"), epmd: script(t, "echo no port; exit 1"), want: "no port"},
		{name: "a program that is not there", server: "/nonexistent/rabbitmq-server", epmd: plays(t, "epmd"), want: "no such file"},
		{name: "a folder whose name the start script would split", server: plays(t, "server"), epmd: plays(t, "epmd"), dir: "a b", want: "spaces"},
		{name: "a wait that is called off", server: script(t, "exec sleep 60"), epmd: plays(t, "epmd"), cancelled: true, want: "context canceled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), tt.dir)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.cancelled {
				time.AfterFunc(200*time.Millisecond, cancel)
			}
			r, err := startNode(ctx, dir, tt.server, tt.epmd, "load")
			if err == nil {
				t.Fatalf("started; stopped again: %v", r.stop())
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
		})
	}
}

func TestAChildThatIgnoresItsEndIsKilled(t *testing.T) {
	c, err := startChild(t.TempDir(), nil, plays(t, "deaf"))
	if err != nil {
		t.Fatal(err)
	}
	c.grace = 50 * time.Millisecond
	heard := func() bool {
		said, err := os.ReadFile(c.said)
		return err == nil && strings.Contains(string(said), "deaf")
	}
	if err := c.await(t.Context(), heard); err != nil {
		t.Fatal(err)
	}
	if err := c.stop(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("error %v; want that it was killed", err)
	}
	if !c.exited() {
		t.Error("it is alive")
	}
}

func TestRound(t *testing.T) {
	for _, tt := range []struct {
		name string
		load string
		want Figure
		err  string // part of it; "" for none
	}{
		{
			"the line of the load program becomes a figure",
			`echo '{"enqueue":10.5,"consume":20,"consume_multiple":30,"p50_ns":740000}'`,
			Figure{Enqueue: 10.5, Consume: 20, P50: 740 * time.Microsecond, ConsumeMultiple: 30},
			"",
		},
		{"a load that fails says why", "echo message 7 came twice >&2; exit 1", Figure{}, "came twice"},
		{"a load that says nothing", "true", Figure{}, "EOF"},
		{"a figure that is not there", `echo '{"enqueue":10.5,"consume":20,"p50_ns":740000}'`, Figure{}, "missing"},
		{"a figure of another name", `echo '{"enqueue":1,"consume":1,"consume_multiple":1,"p50_ns":1,"p99_ns":2}'`, Figure{}, "p99_ns"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			node, err := startChild(t.TempDir(), nil, script(t, "exec /bin/sleep 60"))
			if err != nil {
				t.Fatal(err)
			}
			r := &rabbit{load: script(t, tt.load), node: node}
			defer r.stop() // sleep ends at once
			got, err := r.round(t.Context(), 1000)
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v; want one that says %q", err, tt.err)
			}
		})
	}
}
