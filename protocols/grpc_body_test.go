package protocols

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
)

// grpcRead is how much grpc-go's ServeHTTP reads at once.
const grpcRead = 16 << 10

// errFeedClosed is what net/http has for reads of a body that is closed.
var errFeedClosed = errors.New("body closed")

// feed is a body that comes in parts of one length. It must not be read by more than one
// goroutine.
type feed struct {
	data   []byte
	part   int
	more   chan struct{} // if not nil, the rest and the end come when it is closed
	rest   []byte
	mu     sync.Mutex // guards what follows
	closed bool
}

func (f *feed) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.closed && len(f.data) == 0 && f.more != nil {
		f.mu.Unlock()
		<-f.more
		f.mu.Lock()
		f.data, f.rest = f.rest, nil
	}
	switch {
	case f.closed:
		return 0, errFeedClosed
	case len(f.data) == 0:
		return 0, io.EOF
	}
	n := copy(p, f.data[:min(f.part, len(f.data))])
	f.data = f.data[n:]
	return n, nil
}

func (f *feed) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

// message returns a message of gRPC with n bytes of payload.
func message(n int) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(n)), make([]byte, n)...)
}

// queue reads a body as grpc-go's ServeHTTP does.
type queue struct {
	*callBody

	buffers, bytes int
	err            error
}

// read reads until the end. What it has read so far stands in the queue whenever it waits.
func (q *queue) read() {
	for {
		n, err := q.Read(make([]byte, grpcRead))
		if n > 0 {
			q.buffers++
			q.bytes += n
		}
		if err != nil {
			q.err = err
			return
		}
	}
}

// queued begins to read a body of the messages, which comes in parts.
func queued(t *testing.T, data []byte, part int, stream bool) *queue {
	t.Helper()
	q := &queue{callBody: newCallBody(&feed{data: data, part: part}, 64*grpcRead, 1<<20)}
	if stream {
		q.asked, q.taken = 0, 0
	}
	go q.read()
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return q
}

// want checks what has been read when the queue waits.
func (q *queue) want(t *testing.T, what string, buffers, bytes int, err error) {
	t.Helper()
	synctest.Wait()
	if q.buffers != buffers || q.bytes != bytes || !errors.Is(q.err, err) {
		t.Errorf("%s: %d bytes in %d buffers, %v; want %d in %d, %v", what, q.bytes, q.buffers, q.err, bytes, buffers, err)
	}
}

// TestCallBody: grpc-go gets no more of a call's body than its window and what the handler
// waits for.
func TestCallBody(t *testing.T) {
	const window = 4 * grpcRead
	short := bytes.Repeat(message(100), 100)
	for name, test := range map[string]func(*testing.T){
		"short messages, each in a buffer": func(t *testing.T) {
			q := queued(t, short, 105, true)
			q.want(t, "nothing is asked for", 4, 4*105, nil)
			for range 10 {
				q.ask(1)
				q.take(1)
			}
			q.want(t, "ten are taken", 14, 14*105, nil)
			q.ask(1)
			q.want(t, "the next is there", 14, 14*105, nil)
		},
		"short messages together": func(t *testing.T) {
			q := queued(t, bytes.Repeat(short, 100), 1<<20, true)
			q.want(t, "nothing is asked for", 4, window, nil)
			for range grpcRead / 105 {
				q.ask(1)
				q.take(1)
			}
			q.want(t, "as many as are in a buffer, which has a part of the next", 4, window, nil)
			q.ask(1)
			q.take(1)
			q.want(t, "the next", 5, window+grpcRead, nil)
		},
		"a long message in small parts": func(t *testing.T) {
			long := message(1 << 20)
			q := queued(t, bytes.Repeat(long, 2), 57, true)
			q.want(t, "nothing is asked for", 4, window, nil)
			q.ask(1)
			q.want(t, "it is asked for", 65, 64*grpcRead+57, nil)
			q.take(1)
			q.want(t, "it is taken, but for the buffer with a part of the next", 68, 64*grpcRead+57+3*grpcRead, nil)
			q.ask(1)
			q.want(t, "the second is asked for", 129, 2*len(long), nil)
			q.take(1)
			q.want(t, "it is taken", 129, 2*len(long), io.EOF)
		},
		"a message that is too long": func(t *testing.T) {
			q := queued(t, message(2<<20), 1000, true)
			q.want(t, "the head passes at once", 4, 4000, nil)
			q.ask(1)
			q.want(t, "it is asked for", 4, 4000, nil)
		},
		"a single message": func(t *testing.T) {
			q := queued(t, message(1<<20), 1000, false)
			q.want(t, "it passes, and the end", 65, 5+(1<<20), io.EOF)
		},
		"others behind a single one": func(t *testing.T) {
			q := queued(t, bytes.Repeat(message(1<<20), 3), 1<<20, false)
			q.want(t, "a second, which grpc-go refuses, and the window", 128+4, 128*grpcRead+window, nil)
		},
		"the end of the call": func(t *testing.T) {
			q := queued(t, short, 105, true)
			if err := q.Close(); err != nil {
				t.Error(err)
			}
			q.want(t, "closed", 4, 4*105, errFeedClosed)
		},
		"whoever else reads messages": func(t *testing.T) {
			q := queued(t, bytes.Repeat(message(1<<20), 2), 1<<20, true)
			q.ask(1)
			q.take(1)
			q.ask(1) // As a takenCounter.
			q.want(t, "the next is asked for", 129, 2*(5+(1<<20)), nil)
			q.take(1)
			q.want(t, "it is taken", 129, 2*(5+(1<<20)), io.EOF)
		},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
	}
}

// FuzzMessages: messages are counted alike, however their bytes are split.
func FuzzMessages(f *testing.F) {
	f.Add(bytes.Join([][]byte{message(0), message(3), message(300)}, nil), uint8(1))
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0, 0}, uint8(4))
	f.Add(message(40)[:9], uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		want, whole := int64(0), b
		for len(whole) >= 5 && uint64(len(whole)-5) >= uint64(binary.BigEndian.Uint32(whole[1:])) {
			want++
			whole = whole[5+binary.BigEndian.Uint32(whole[1:]):]
		}
		last := want
		if len(whole) > 0 {
			last++
		}
		for _, n := range []int{int(step) + 1, len(b) + 1} {
			var m messages
			for p := b; len(p) > 0; p = p[min(n, len(p)):] {
				m.pass(p[:min(n, len(p))])
			}
			if m.complete != want || m.last() != last {
				t.Errorf("%x in steps of %d: %d messages, and %d have begun; want %d and %d", b, n, m.complete, m.last(), want, last)
			}
		}
	})
}

// TestStreamInterceptorIsFound: the option that stands before all interceptors is known.
func TestStreamInterceptorIsFound(t *testing.T) {
	through := func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		return h(srv, ss)
	}
	for name, tt := range map[string]struct {
		option grpc.ServerOption
		want   bool
	}{
		"grpc.StreamInterceptor":      {grpc.StreamInterceptor(through), true},
		"grpc.ChainStreamInterceptor": {grpc.ChainStreamInterceptor(through), false},
		"another":                     {grpc.MaxRecvMsgSize(1), false},
		"none":                        {grpc.EmptyServerOption{}, false},
	} {
		if got := isStreamInterceptor(tt.option); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// streamFeed is a feed that says its stream as net/http's bodies do.
type streamFeed struct {
	*feed
	stream *feedStream
}

type feedStream struct{ id uint32 }

// feedWindows notes what is kept.
type feedWindows struct {
	budget CallBudget

	mu          sync.Mutex // guards what follows
	kept, given int
	over        bool
}

func (w *feedWindows) KeepWindow(stream uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept++
	return stream == 7
}

func (w *feedWindows) GiveWindow(_ uint32, over bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.given++
	w.over = over
}

func (w *feedWindows) CallBudget() *CallBudget { return &w.budget }

// want checks what has been kept and given, and what the budget counts.
func (w *feedWindows) want(t *testing.T, what string, kept, given, bytes int) {
	t.Helper()
	synctest.Wait()
	if w.kept != kept || w.given != given || w.budget.bytes != bytes {
		t.Errorf("%s: kept %d times, given %d times, %d bytes held; want %d, %d and %d", what, w.kept, w.given, w.budget.bytes, kept, given, bytes)
	}
}

// overflowing is queued with a connection whose windows can be kept.
func overflowing(data []byte, part int, w *feedWindows) *queue {
	body := &streamFeed{&feed{data: data, part: part}, &feedStream{7}}
	q := &queue{callBody: newCallBody(body, 8*grpcRead, 1<<20)}
	q.asked, q.taken, q.windows, q.budget = 0, 0, w, &w.budget
	return q
}

// fallBehind has a handler take what there is, and then nothing of so many messages that come
// behind that. It wants the client to have been held back so many times.
func fallBehind(t *testing.T, messages, kept int) {
	one := message(10_000)
	var w feedWindows
	q := overflowing(bytes.Repeat(one, 5), 10_005, &w)
	body, more := q.ReadCloser.(*streamFeed), make(chan struct{})
	body.more, body.rest = more, bytes.Repeat(one, messages)
	go q.read()
	q.want(t, "nothing is asked for", 4, 4*len(one), nil)
	for range 5 {
		q.ask(1)
		q.take(1)
	}
	q.ask(1)
	w.want(t, "all is taken", 1, 1, 0)
	q.ask(-1)
	close(more)
	synctest.Wait()
	if w.kept != kept || w.given != 1 {
		t.Errorf("kept %d times, given %d times; want %d and 1", w.kept, w.given, kept)
	}
	_ = q.Close()
	synctest.Wait()
	q.end()
}

// TestOverflow: a body is read on while grpc-go gets no more of it, and its client is held
// back until the rest is asked for.
func TestOverflow(t *testing.T) {
	one := message(10_000)
	for name, test := range map[string]func(*testing.T){
		"the handler reads late": func(t *testing.T) {
			var w feedWindows
			q := overflowing(bytes.Repeat(one, 100), 10_005, &w)
			go q.read()
			q.want(t, "nothing is asked for", 4, 4*len(one), nil)
			w.want(t, "the rest is there", 1, 0, 4*grpcRead+96*len(one))
			for range 100 {
				q.ask(1)
				q.take(1)
			}
			q.want(t, "all is taken", 4+59, 100*len(one), io.EOF)
			q.end()
			w.want(t, "at the end", 1, 1, 0)
			if w.over {
				t.Error("the client was not given what was kept")
			}
		},
		"nothing more can come": func(t *testing.T) {
			var w feedWindows
			more := make(chan struct{})
			q := overflowing(bytes.Repeat(one, 4), 10_005, &w)
			q.ReadCloser.(*streamFeed).more = more
			go q.read()
			q.want(t, "nothing is asked for", 4, 4*len(one), nil)
			w.want(t, "the client is held back", 1, 0, 4*grpcRead)
			for range 4 {
				q.ask(1)
				q.take(1)
			}
			q.ask(1)
			w.want(t, "the next message is asked for", 1, 1, 0)
			close(more)
			q.want(t, "the end", 4, 4*len(one), io.EOF)
			q.end()
			w.want(t, "at the end", 1, 1, 0)
		},
		"the handler falls behind by less than the window": func(t *testing.T) { fallBehind(t, 10, 1) },
		"the handler falls behind by the window":           func(t *testing.T) { fallBehind(t, 30, 2) },
		"the handler reads nothing": func(t *testing.T) {
			var w feedWindows
			q := overflowing(bytes.Repeat(one, 100), 10_005, &w)
			go q.read()
			q.want(t, "nothing is asked for", 4, 4*len(one), nil)
			_ = q.Close()
			synctest.Wait()
			q.end()
			w.want(t, "at the end", 1, 1, 0)
			if !w.over {
				t.Error("the client of a stream that is over was given something")
			}
			q.take(1)
			w.want(t, "behind the end", 1, 1, 0)
		},
		"the budget is full": func(t *testing.T) {
			var w feedWindows
			w.budget.add(callBudget)
			q := overflowing(bytes.Repeat(one, 100), 10_005, &w)
			go q.read()
			q.want(t, "nothing is asked for", 4, 4*len(one), nil)
			w.want(t, "nothing more is read", 1, 0, callBudget+4*grpcRead)
			for range 5 {
				q.ask(1)
				q.take(1)
			}
			q.ask(1)
			q.want(t, "the share of the call is", 9, 9*len(one), nil)
			w.budget.add(-callBudget)
			synctest.Wait()
			if w.budget.bytes != 4*grpcRead+91*len(one) {
				t.Errorf("%d bytes are held when there is room again", w.budget.bytes)
			}
			_ = q.Close()
			synctest.Wait()
			q.end()
		},
		"closed while the budget is full": func(t *testing.T) {
			var w feedWindows
			w.budget.add(callBudget)
			q := overflowing(bytes.Repeat(one, 100), 10_005, &w)
			go q.read()
			q.want(t, "nothing is asked for", 4, 4*len(one), nil)
			_ = q.Close()
			synctest.Wait()
			q.end()
			w.want(t, "at the end", 1, 1, callBudget)
		},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
	}
}
