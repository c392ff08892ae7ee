package haproxy

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"myrmidon/internal/testkit/long"
)

// randomTarget is a stub that answers with some dump of a fleet whose members differ a little,
// in pieces, and sometimes not in full.
func randomTarget(t *testing.T, r *rand.Rand, pid, rows, tricks int) Target {
	answer := dump(pid, 100, 5, "")
	answer = answer[:strings.Index(answer, "# ")]
	cells := func(name string, i int) string {
		text := []string{"UP", "DOWN", "UP 1/3", "\"no\n\ncheck, \"\"x\"\"\"", "", "y\x80"}[max(0, r.IntN(60)-54)]
		return fmt.Sprintf("app,%s,%d,%d,%s,%s,", name, r.IntN(9), r.Uint64()>>r.IntN(64), []string{"", strconv.Itoa(i)}[r.IntN(2)], text)
	}
	var b strings.Builder
	header, extra := "# pxname,svname,scur,stot,smax,status,rtime,type,\n", ""
	trick := r.IntN(tricks)
	if trick == 0 {
		header, extra = "# pxname,svname,scur,stot,smax,status,rtime,eint,type,\n", "7,"
	}
	b.WriteString(header)
	order := make([]int, rows)
	for i := range order {
		order[i] = i
	}
	switch trick {
	case 1:
		r.Shuffle(rows, func(i, j int) { order[i], order[j] = order[j], order[i] })
	case 2:
		order = order[:r.IntN(rows+1)]
	case 3:
		k := r.IntN(rows + 1)
		order = append(order[:k:k], append([]int{-1, k, -2}, order[k:]...)...)
	}
	for _, i := range order {
		b.WriteString(cells(fmt.Sprint("s", i), i) + fmt.Sprint(r.IntN(100), ",") + extra + "2,\n")
		if trick == 4 && r.IntN(rows) == 0 {
			b.WriteString("garbage\n")
		}
	}
	if trick == 5 {
		b.WriteString("app," + strings.Repeat("x", 300_000) + ",,,,,," + extra + "2,\n")
	}
	answer += b.String() + "\n"
	if trick == 6 {
		answer = answer[:r.IntN(len(answer))]
	}
	step := []int{7, 300, 5000, 20_000, 300_000}[r.IntN(5)]
	if len(answer) > 5000 && step < 300 {
		step = 300
	}
	pause := time.Duration(r.IntN(3)) * 3 * time.Millisecond
	pauses := r.IntN(3)
	return Target{Address: newStub(t, func(conn net.Conn, _ string) {
		n := len(answer)/step + 1
		for i := 0; i < len(answer); i += step {
			if _, err := io.WriteString(conn, answer[i:min(len(answer), i+step)]); err != nil {
				return
			}
			if pauses > 0 && (i/step)%(n/pauses+1) == 0 {
				time.Sleep(pause)
			}
		}
	}).path, Name: fmt.Sprint("t", pid)}
}

func TestOneLookFindsWhatAPollFinds(t *testing.T) {
	long.Test(t)
	for i := range 12 {
		r := rand.New(rand.NewPCG(1, uint64(i)))
		rows := []int{0, 3, 40, 400, 3000}[r.IntN(5)]
		tricks := 7 + r.IntN(3)*30
		var targets []Target
		for pid := range 1 + r.IntN(17) {
			targets = append(targets, randomTarget(t, r, pid+1, rows, tricks))
		}
		if !t.Run(fmt.Sprintf("%d: %d of %d rows", i, len(targets), rows), func(t *testing.T) {
			checkSingle(t, Config{Targets: targets, FixedRules: i%2 == 0, Timeout: patience})
		}) {
			return
		}
	}
}
