package main

import (
	"compress/gzip"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// lineLength is that of every line, without its line feed: the length of the lines that the
// figures in this house were first taken with, about what a browser's request takes.
const lineLength = 702

// objectName is what AWS would call it: the time is the end of its interval.
const objectName = "123456789012_elasticloadbalancing_us-east-2_app.web-frontend.50dc6c495c0c9188_20250819T2135Z_203.0.113.10_4zvgvj9q.log.gz"

// browsers are user agents, as long as they are.
var browsers = []string{
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/139.0.0.0 Safari/537.36",
	"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
	"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
	"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
}

// lines makes lines.
type lines struct {
	random *rand.Rand
	at     time.Time
}

func newLines() *lines {
	return &lines{rand.New(rand.NewPCG(702, 34)), time.Date(2025, 8, 19, 21, 30, 0, 0, time.UTC)}
}

func pick[T any](l *lines, of ...T) T { return of[l.random.IntN(len(of))] }

// append appends a line of all 34 columns and exactly lineLength bytes, without a line feed:
// its query is as long as it has to be.
func (l *lines) append(dst []byte) []byte {
	l.at = l.at.Add(time.Duration(l.random.IntN(400)) * time.Microsecond)
	took := time.Duration(l.random.IntN(900_000)) * time.Microsecond
	target := fmt.Sprintf("10.20.%d.%d:8080", l.random.IntN(4), l.random.IntN(256))
	status := pick(l, 200, 200, 200, 200, 200, 200, 204, 301, 304, 404, 502)
	const stamp = "2006-01-02T15:04:05.000000Z"
	before := fmt.Sprintf("https %s app/web-frontend/50dc6c495c0c9188 %d.%d.%d.%d:%d %s 0.00%d %.3f 0.000 %d %d %d %d \"%s https://www.example.com:443/%s?session=",
		l.at.Format(stamp), 1+l.random.IntN(223), l.random.IntN(256), l.random.IntN(256), l.random.IntN(256), 1024+l.random.IntN(64000), target,
		l.random.IntN(3), took.Seconds(), status, status, 40+l.random.IntN(3000), 100+l.random.IntN(200_000),
		pick(l, "GET", "GET", "GET", "POST"), pick(l, "api/v2/search", "", "assets/app.js", "video/master.m3u8", "api/v2/users/41/orders"))
	after := fmt.Sprintf(" HTTP/2.0\" \"%s\" %s TLSv1.3 arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/api/73e2d6bc24d8a067 \"Root=1-%08x-%024x\" \"www.example.com\" \"session-reused\" %d %s \"%s\" \"-\" \"-\" \"%s\" \"%d\" \"-\" \"-\" TID_%032x \"-\" \"-\" \"-\" 10.0.1.%d",
		pick(l, browsers...), pick(l, "TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"), l.at.Unix(), l.random.Uint64(),
		l.random.IntN(30), l.at.Add(-took).Format(stamp), pick(l, "forward", "waf,forward"), target, status, l.random.Uint64(), l.random.IntN(256))
	dst = append(dst, before...)
	for range lineLength - len(before) - len(after) {
		dst = append(dst, "abcdefghijklmnopqrstuvwxyz012345"[l.random.IntN(32)])
	}
	return append(dst, after...)
}

// memberLines is how many lines a gzip member of an object has: objects repeat one member, so
// that those of gigabytes are written in seconds.
const memberLines = 100_000

// writeObject writes an object of so many lines into a new folder.
func writeObject(folder, count string) (err error) {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	if err := os.Mkdir(folder, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(folder, objectName))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	whole, err := member(min(n, memberLines))
	if err != nil {
		return err
	}
	for ; n >= memberLines; n -= memberLines {
		if _, err := f.WriteString(whole); err != nil {
			return err
		}
	}
	if n == 0 {
		return nil
	}
	rest, err := member(n)
	if err == nil {
		_, err = f.WriteString(rest)
	}
	return err
}

// member packs lines, at the level that gzip has by default.
func member(n int) (string, error) {
	var b strings.Builder
	z := gzip.NewWriter(&b)
	l := newLines()
	var line []byte
	for range n {
		line = append(l.append(line[:0]), '\n')
		if _, err := z.Write(line); err != nil {
			return "", err
		}
	}
	err := z.Close()
	return b.String(), err
}
