// Command rabbit loads a RabbitMQ broker as a user who wants speed and safety would, and
// prints what it reached: the peer of `make bench-engine`. It is a module of its own, so
// that Myrmidon does not depend on an AMQP client.
//
// Each measurement has a durable quorum queue of its own, deleted at the end:
//
//	latency   one message at a time on an idle queue: from the call that publishes it
//	          to the consumer that holds it. The broker hands it out after its fsync.
//	enqueue   n persistent messages, from the first publish until the last confirm,
//	          with a bounded number of unconfirmed ones
//	consume   the same n, from the first request until each was acknowledged by itself
//	          and the broker has answered a call sent behind the last acknowledgement
//	multiple  n more, published and consumed, with one acknowledgement for many
//
// Every message is numbered. One that is lost, comes twice or is changed, a confirm that
// says no, and a queue that is not empty at the end are errors, never a figure.
//
// The defaults of the flags had the best medians of enqueue and of consume among those
// that were tried in turn, 60,000 messages at a time, with RabbitMQ 3.10 on two cores
// that the load shared with it and with other work. Medians of five rounds (four of
// -direct), in thousands a second (publishers/outstanding/consumers/prefetch; enqueue,
// consume, multiple); rounds of the same settings differ by up to a factor of two:
//
//	1/2048/1/1024   24  53  65        8/8192/4/1024            39  83  93
//	1/4096/1/2048   29  65  81        8/16384/4/2048           33  76  96
//	2/4096/2/1024   32  60  91        16/16384/8/1024          31  72  86
//	4/8192/2/2048   35  65  90        8/8192/4/1024 -direct    25  52  77
//
// Frames of many messages go to the socket in one write (see gather); -direct is
// without. The collector's pace (GOGC 100 or 400) made no difference that stood out of
// the noise of three rounds.
//
// It prints one line of JSON, a Report.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Report is what was measured. Rates are messages a second.
type Report struct {
	Enqueue         float64       `json:"enqueue"`          // published until confirmed, both times
	Consume         float64       `json:"consume"`          // each acknowledged by itself
	ConsumeMultiple float64       `json:"consume_multiple"` // acknowledged many at a time
	P50             time.Duration `json:"p50_ns"`           // publish to handler, idle queue
}

// settings says how to load the broker.
type settings struct {
	url         string
	n           int // messages of each measurement of throughput
	size        int // bytes of a message
	publishers  int // connections that publish, each with one channel
	outstanding int // unconfirmed messages, over all publishers
	consumers   int // connections that consume, each with one channel
	prefetch    int // unacknowledged messages of one consumer
	multiple    int // messages to one acknowledgement, where many are allowed
	latencies   int // messages to take the latency of
	direct      bool
	filler      []byte // see filler
}

// check refuses settings which would hang or say nothing.
func (s settings) check() error {
	switch {
	case s.url == "":
		return errors.New("-url is missing: amqp://user:password@host:port/")
	case s.n < 1 || s.latencies < 1:
		return errors.New("-n and -latencies must be at least 1")
	case s.size < numberSize:
		return fmt.Errorf("-size must be at least %d bytes, for the message's number", numberSize)
	case s.publishers < 1 || s.consumers < 1 || s.outstanding < s.publishers:
		return errors.New("-publishers and -consumers must be at least 1, -outstanding 1 a publisher")
	case s.multiple < 1 || s.prefetch < s.multiple || s.prefetch > 65535:
		return errors.New("-prefetch must be from -multiple to 65535: else no message comes until one is acknowledged")
	}
	return nil
}

func main() {
	var s settings
	var limit time.Duration
	flag.StringVar(&s.url, "url", "", "the broker: amqp://user:password@host:port/")
	flag.IntVar(&s.n, "n", 100_000, "messages of each measurement of throughput")
	flag.IntVar(&s.size, "size", 300, "bytes of a message")
	flag.IntVar(&s.publishers, "publishers", 8, "connections that publish")
	flag.IntVar(&s.outstanding, "outstanding", 8192, "unconfirmed messages at most, over all publishers")
	flag.IntVar(&s.consumers, "consumers", 4, "connections that consume")
	flag.IntVar(&s.prefetch, "prefetch", 1024, "unacknowledged messages at most, of one consumer")
	flag.IntVar(&s.multiple, "multiple", 256, "messages to one acknowledgement")
	flag.IntVar(&s.latencies, "latencies", 301, "messages to take the latency of")
	flag.BoolVar(&s.direct, "direct", false, "write each message to the socket by itself")
	flag.DurationVar(&limit, "timeout", 2*time.Minute, "give up after this long")
	flag.Parse()
	err := s.check()
	if flag.NArg() > 0 {
		err = fmt.Errorf("no argument is taken: %q", flag.Args())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rabbit:", err)
		flag.Usage()
		os.Exit(2)
	}
	s.filler = filler(s.size)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %v", limit))
	defer cancel()
	report, err := measure(ctx, s)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // every connection was closed for it
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(report)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rabbit:", err)
		os.Exit(1)
	}
}

// measure runs the three measurements one after the other, so that none disturbs
// another.
func measure(ctx context.Context, s settings) (r Report, err error) {
	if r.P50, err = s.latency(ctx); err != nil {
		return r, fmt.Errorf("latency: %w", err)
	}
	var published time.Duration
	for _, m := range []struct {
		name     string
		multiple int
		rate     *float64
	}{
		{"each", 1, &r.Consume},
		{"multiple", s.multiple, &r.ConsumeMultiple},
	} {
		err := s.withQueue(ctx, m.name, func(queue string) error {
			took, err := s.publish(ctx, queue)
			if err != nil {
				return fmt.Errorf("publish: %w", err)
			}
			published += took
			if took, err = s.consume(ctx, queue, m.multiple); err != nil {
				return fmt.Errorf("consume: %w", err)
			}
			*m.rate = float64(s.n) / took.Seconds()
			return nil
		})
		if err != nil {
			return r, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	r.Enqueue = 2 * float64(s.n) / published.Seconds()
	return r, nil
}
