package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// settle is how long a queue is left alone before its messages are counted.
const settle = 200 * time.Millisecond

// numberSize is the length of a message's number, its first bytes.
const numberSize = 8

// alphabet is how many different messages there are, but for their numbers.
const alphabet = 26

// filler is what messages are cut from: message i has what begins at i%alphabet.
func filler(size int) []byte {
	b := make([]byte, 0, size+alphabet)
	for i := range cap(b) {
		b = append(b, byte('a'+i%alphabet))
	}
	return b
}

// body is message i: its number, and bytes that differ from one message to the next.
func (s settings) body(b []byte, i int) []byte {
	b = binary.LittleEndian.AppendUint64(b[:0], uint64(i))
	return append(b, s.rest(uint64(i))...)
}

// rest is message i behind its number.
func (s settings) rest(i uint64) []byte {
	from := i % alphabet
	return s.filler[from : from+uint64(s.size-numberSize)]
}

// lane is a connection with one channel.
type lane struct {
	conn *amqp.Connection
	ch   *amqp.Channel
}

// open makes a connection and a channel. When ctx ends the connection is closed, which
// ends every call on it.
func (s settings) open(ctx context.Context) (lane, error) {
	dial := func(network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		// The client expects a deadline for its handshake, and takes it back itself.
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		if s.direct {
			return c, nil
		}
		return newGather(c), nil
	}
	conn, err := amqp.DialConfig(s.url, amqp.Config{Dial: dial})
	if err != nil {
		return lane{}, fmt.Errorf("connect to the broker: %w", err)
	}
	context.AfterFunc(ctx, func() { closeConn(conn) }) // whoever uses it learns of it from its own call
	ch, err := conn.Channel()
	if err != nil {
		return lane{}, errors.Join(fmt.Errorf("open a channel: %w", err), closeConn(conn))
	}
	return lane{conn, ch}, nil
}

// openAll opens k lanes and prepares each; on error none is left open.
func (s settings) openAll(ctx context.Context, k int, prepare func(*amqp.Channel) error) (lanes []lane, err error) {
	for range k {
		l, err := s.open(ctx)
		if err == nil {
			lanes = append(lanes, l)
			err = prepare(l.ch)
		}
		if err != nil {
			return nil, errors.Join(err, closeAll(lanes))
		}
	}
	return lanes, nil
}

// closeAll closes lanes; one that is closed already is no error.
func closeAll(lanes []lane) error {
	var errs []error
	for _, l := range lanes {
		errs = append(errs, closeConn(l.conn))
	}
	return errors.Join(errs...)
}

// closeConn closes a connection, without an answer after a few seconds.
func closeConn(conn *amqp.Connection) error {
	err := conn.CloseDeadline(time.Now().Add(5 * time.Second))
	if errors.Is(err, amqp.ErrClosed) {
		return nil
	}
	return err
}

// withQueue declares a quorum queue, hands its name to fn, and deletes it. It is an
// error if the queue is not empty after fn.
func (s settings) withQueue(ctx context.Context, name string, fn func(queue string) error) (err error) {
	name = fmt.Sprintf("bench-%s-%d-%d", name, os.Getpid(), time.Now().UnixNano())
	l, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll([]lane{l})) }()
	if _, err := l.ch.QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		return fmt.Errorf("declare queue %s: %w", name, err)
	}
	if err := fn(name); err != nil {
		return err
	}
	// What a consumer has left unacknowledged is back in the queue a moment after its
	// connection was closed; there is no call that waits for it.
	time.Sleep(settle)
	q, err := l.ch.QueueDeclarePassive(name, true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	if err != nil {
		return fmt.Errorf("look at queue %s: %w", name, err)
	}
	if _, err := l.ch.QueueDelete(name, false, false, false); err != nil {
		return fmt.Errorf("delete queue %s: %w", name, err)
	}
	if q.Messages > 0 {
		return fmt.Errorf("queue %s still holds %d messages after all were acknowledged", name, q.Messages)
	}
	return nil
}

// all runs one goroutine a lane and returns how long they took together. The first
// error ends the others, by closing every connection.
func all(lanes []lane, work func(i int, ch *amqp.Channel) error) (time.Duration, error) {
	errs := make([]error, len(lanes))
	var wg sync.WaitGroup
	start := time.Now()
	for i, l := range lanes {
		wg.Go(func() {
			if errs[i] = work(i, l.ch); errs[i] != nil {
				errs[i] = errors.Join(errs[i], closeAll(lanes))
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	// A lane that another's error has closed says only that.
	var causes, echoes []error
	for _, err := range errs {
		if errors.Is(err, amqp.ErrClosed) {
			echoes = append(echoes, err)
		} else {
			causes = append(causes, err)
		}
	}
	return took, cmp.Or(errors.Join(causes...), errors.Join(echoes...))
}

// publish sends n messages and returns the time until the last was confirmed.
func (s settings) publish(ctx context.Context, queue string) (took time.Duration, err error) {
	lanes, err := s.openAll(ctx, s.publishers, func(ch *amqp.Channel) error { return ch.Confirm(false) })
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, closeAll(lanes)) }()
	return all(lanes, func(i int, ch *amqp.Channel) error {
		return s.publishPart(ch, queue, i*s.n/s.publishers, (i+1)*s.n/s.publishers)
	})
}

// publishPart sends messages from to before end over one channel and waits until all
// are confirmed.
func (s settings) publishPart(ch *amqp.Channel, queue string, from, end int) error {
	window := max(1, s.outstanding/s.publishers)
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, window))
	var confirmed int
	wait := func() error {
		c, ok := <-confirms
		if !ok {
			return fmt.Errorf("%w with %d of %d messages confirmed", amqp.ErrClosed, confirmed, end-from)
		}
		if !c.Ack {
			return fmt.Errorf("the broker refused message %d", from+int(c.DeliveryTag)-1)
		}
		confirmed++
		return nil
	}
	var buf []byte
	for i := from; i < end; i++ {
		if i-from-confirmed >= window {
			if err := wait(); err != nil {
				return err
			}
		}
		buf = s.body(buf, i)
		if err := ch.Publish("", queue, false, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: buf}); err != nil {
			return err
		}
	}
	for confirmed < end-from {
		if err := wait(); err != nil {
			return err
		}
	}
	return nil
}

// tally notes which messages have come.
type tally struct {
	seen []atomic.Bool
	left atomic.Int64
	done chan struct{} // closed when all have come
}

func newTally(n int) *tally {
	t := &tally{seen: make([]atomic.Bool, n), done: make(chan struct{})}
	t.left.Store(int64(n))
	return t
}

// note takes the body of a delivery; an error is one that should not have come.
func (t *tally) note(s settings, body []byte) error {
	if len(body) != s.size {
		return fmt.Errorf("a message of %d bytes came; %d were sent", len(body), s.size)
	}
	i := binary.LittleEndian.Uint64(body)
	if i >= uint64(len(t.seen)) {
		return fmt.Errorf("message %d came; only %d were sent", i, len(t.seen))
	}
	if !bytes.Equal(body[numberSize:], s.rest(i)) {
		return fmt.Errorf("message %d was changed on its way", i)
	}
	if t.seen[i].Swap(true) {
		return fmt.Errorf("message %d came twice", i)
	}
	if t.left.Add(-1) == 0 {
		close(t.done)
	}
	return nil
}

// consume takes n messages, acknowledges multiple of them at a time, and returns the
// time until the broker had answered a call behind the last acknowledgement.
func (s settings) consume(ctx context.Context, queue string, multiple int) (took time.Duration, err error) {
	lanes, err := s.openAll(ctx, s.consumers, func(ch *amqp.Channel) error { return ch.Qos(s.prefetch, 0, false) })
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, closeAll(lanes)) }()
	t := newTally(s.n)
	return all(lanes, func(_ int, ch *amqp.Channel) error { return s.consumePart(ch, queue, multiple, t) })
}

// consumePart takes messages over one channel until t is full.
func (s settings) consumePart(ch *amqp.Channel, queue string, multiple int, t *tally) error {
	const tag = "bench"
	deliveries, err := ch.Consume(queue, tag, false, false, false, false, nil)
	if err != nil {
		return err
	}
	var last uint64
	pending := 0
	ack := func() error {
		err := ch.Ack(last, multiple > 1)
		pending = 0
		return err
	}
	for {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return fmt.Errorf("%w with %d messages to come", amqp.ErrClosed, t.left.Load())
			}
			if err := t.note(s, d.Body); err != nil {
				return err
			}
			last, pending = d.DeliveryTag, pending+1
			if pending >= multiple {
				if err := ack(); err != nil {
					return err
				}
			}
		case <-t.done:
			if pending > 0 {
				if err := ack(); err != nil {
					return err
				}
			}
			return ch.Cancel(tag, false)
		}
	}
}

// latency returns the median time from publish to handler, of one message at a time.
func (s settings) latency(ctx context.Context) (p50 time.Duration, err error) {
	err = s.withQueue(ctx, "latency", func(queue string) error {
		lanes, err := s.openAll(ctx, 2, func(ch *amqp.Channel) error { return ch.Confirm(false) })
		if err != nil {
			return err
		}
		p50, err = s.latencyOver(lanes[0].ch, lanes[1].ch, queue)
		return errors.Join(err, closeAll(lanes))
	})
	return p50, err
}

// latencyOver publishes on one channel and consumes on another. The next message goes
// out when the former is confirmed and acknowledged.
func (s settings) latencyOver(out, in *amqp.Channel, queue string) (time.Duration, error) {
	confirms := out.NotifyPublish(make(chan amqp.Confirmation, 1))
	deliveries, err := in.Consume(queue, "bench", false, false, false, false, nil)
	if err != nil {
		return 0, err
	}
	t := newTally(s.latencies)
	var buf []byte
	took := make([]time.Duration, 0, s.latencies)
	for i := range s.latencies {
		buf = s.body(buf, i)
		start := time.Now()
		if err := out.Publish("", queue, false, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: buf}); err != nil {
			return 0, err
		}
		d, ok := <-deliveries
		took = append(took, time.Since(start))
		if !ok {
			return 0, amqp.ErrClosed
		}
		if err := t.note(s, d.Body); err != nil {
			return 0, err
		}
		if err := d.Ack(false); err != nil {
			return 0, err
		}
		if c, ok := <-confirms; !ok || !c.Ack {
			return 0, fmt.Errorf("the broker did not confirm message %d", i)
		}
	}
	if err := in.Cancel("bench", false); err != nil {
		return 0, err
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}
