// Package kinesalite runs a real server of Kinesis's protocol for tests: kinesalite, a program
// for Node.js that keeps streams in memory, as a child process on 127.0.0.1. package.json pins
// its version, and scripts/setup.sh test installs it. It checks requests as Kinesis does, but
// not signatures, throttles nothing, and outlives requests that are cut off. A stream that is
// named as a property of JavaScript's arrays (keys, map) ends it.
package kinesalite

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"myrmidon/internal/sigv4"
	"myrmidon/internal/testkit/program"
)

// Server is a running kinesalite. Its methods may be called from many goroutines.
type Server struct {
	Endpoint string // http://127.0.0.1:PORT
}

// Start runs a server for a test and ends it with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	root, err := program.Repository()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "internal", "testkit", "kinesalite")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "kinesalite")); err != nil {
		t.Fatal("kinesalite is not installed: run scripts/setup.sh test")
	}
	ctx, cancel := context.WithCancel(context.Background())
	child := exec.CommandContext(ctx, "node", "serve.mjs")
	child.Dir = dir
	child.Env = append(os.Environ(), "NODE_NO_WARNINGS=1")
	var said bytes.Buffer
	child.Stderr = &said
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		cancel()
		t.Fatalf("start kinesalite: %v", err)
	}
	t.Cleanup(func() {
		_ = stdin.Close() // which ends it
		late := time.AfterFunc(10*time.Second, cancel)
		defer late.Stop()
		defer cancel()
		if err := child.Wait(); err != nil {
			t.Errorf("kinesalite: %v\n%s", err, &said)
		}
	})
	port, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("kinesalite does not start: %v", err)
	}
	return &Server{Endpoint: "http://127.0.0.1:" + strings.TrimSpace(port)}
}

// Setenv points the environment of a test at the server.
func (s *Server) Setenv(t testing.TB) {
	t.Setenv("AWS_ENDPOINT_URL", s.Endpoint)
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
}

// Create makes a stream, and waits until it can be written to.
func (s *Server) Create(ctx context.Context, stream string, shards int) error {
	if err := s.call(ctx, "CreateStream", map[string]any{"StreamName": stream, "ShardCount": shards}, nil); err != nil {
		return err
	}
	for {
		var d struct{ StreamDescription struct{ StreamStatus string } }
		if err := s.call(ctx, "DescribeStream", map[string]any{"StreamName": stream}, &d); err != nil {
			return err
		}
		if d.StreamDescription.StreamStatus == "ACTIVE" {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Record is what a stream holds.
type Record struct {
	Shard, PartitionKey string
	Data                []byte
}

// Records returns all that a stream holds, shard by shard.
func (s *Server) Records(ctx context.Context, stream string) ([]Record, error) {
	var d struct {
		StreamDescription struct {
			Shards []struct{ ShardID string }
		}
	}
	if err := s.call(ctx, "DescribeStream", map[string]any{"StreamName": stream}, &d); err != nil {
		return nil, err
	}
	var out []Record
	for _, shard := range d.StreamDescription.Shards {
		var at struct{ ShardIterator string }
		err := s.call(ctx, "GetShardIterator", map[string]any{"StreamName": stream, "ShardId": shard.ShardID, "ShardIteratorType": "TRIM_HORIZON"}, &at)
		if err != nil {
			return nil, err
		}
		for {
			var got struct {
				NextShardIterator string
				Records           []Record
			}
			if err := s.call(ctx, "GetRecords", map[string]any{"ShardIterator": at.ShardIterator}, &got); err != nil {
				return nil, err
			}
			if len(got.Records) == 0 {
				break
			}
			for _, r := range got.Records {
				r.Shard = shard.ShardID
				out = append(out, r)
			}
			at.ShardIterator = got.NextShardIterator
		}
	}
	return out, nil
}

// signer signs as Kinesis wants it.
var signer = sigv4.New(sigv4.Config{Service: "kinesis", EncodePath: true})

func (s *Server) call(ctx context.Context, action string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Endpoint+"/", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "Kinesis_20131202."+action)
	signer.Sign(req, sigv4.Credentials{AccessKey: "test", Secret: "test"}, "us-east-1", sigv4.Hash(body), time.Now())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("kinesalite: %s: status %d: %s", action, resp.StatusCode, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}
