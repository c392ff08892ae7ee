package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"time"

	"myrmidon/bench/internal/machine"
	"myrmidon/bench/internal/role"
)

// shotsEach is how often each program runs within a round.
const shotsEach = 15

// A shotResult is the medians of one round.
type shotResult struct {
	Floor, Ours, Library, Seed shot
	Own                        float64 // MB that the measuring process had
}

// shot is what one child took: milliseconds and megabytes. ToFloor is its time to that of the
// floor in the same turn: what makes the machine faster or slower for a while concerns both.
type shot struct{ Wall, CPU, RSS, ToFloor float64 }

// shots runs the programs in turns, each time in another order, since what ran before leaves caches
// and memory behind: args are floor, ours, library, and the sockets.
func shots(ctx context.Context, args []string) (shotResult, error) {
	self, err := os.Executable()
	if err != nil {
		return shotResult{}, err
	}
	sockets := args[3:]
	kinds := []struct {
		name string
		args []string
	}{
		{"floor", append([]string{args[0]}, sockets...)},
		{"ours", append([]string{args[1], "haproxy", "stats", "--csv"}, sockets...)},
		{"library", append([]string{args[2]}, sockets...)},
		{"seed", append([]string{self}, sockets...)},
	}
	taken := make([][]shot, len(kinds))
	for i := range shotsEach + 1 {
		turn := make([]shot, len(kinds))
		for _, k := range rand.Perm(len(kinds)) {
			if turn[k], err = once(ctx, kinds[k].name, kinds[k].args); err != nil {
				return shotResult{}, err
			}
		}
		if i == 0 { // it brings the programs into memory
			continue
		}
		for k, x := range turn {
			x.ToFloor = x.Wall / turn[0].Wall
			taken[k] = append(taken[k], x)
		}
	}
	return shotResult{middle(taken[0]), middle(taken[1]), middle(taken[2]), middle(taken[3]), float64(machine.OwnPeak()) / 1e6}, nil
}

func middle(s []shot) shot {
	return shot{
		median(s, func(x shot) float64 { return x.Wall }),
		median(s, func(x shot) float64 { return x.CPU }),
		median(s, func(x shot) float64 { return x.RSS }),
		median(s, func(x shot) float64 { return x.ToFloor }),
	}
}

func once(ctx context.Context, name string, args []string) (shot, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = role.Environ("")
	if name == "seed" {
		cmd.Env = role.Environ(name)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr // stdout is /dev/null
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return shot{}, fmt.Errorf("%s: %w\n%s", name, err, stderr.String())
	}
	wall := time.Since(start)
	return shot{
		Wall: float64(wall) / 1e6,
		CPU:  float64(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()) / 1e6,
		RSS:  float64(machine.Peak(cmd.ProcessState)) / 1e6,
	}, nil
}
