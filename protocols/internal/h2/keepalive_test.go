package h2

import (
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols/internal/wiretest"
	"github.com/muxserve/muxserve/protocols/moments"
)

// keepaliveTimeout is what is configured in these tests.
const keepaliveTimeout = 20 * time.Second

// pinged is a connection whose server has sent DATA and PINGs.
type pinged struct {
	*trackedConn

	t *testing.T
}

// data has the server send so many bytes.
func (p pinged) data(n int) {
	for ; n > 0; n -= MaxFrameSize {
		p.write(func(fr *http2.Framer) error { return fr.WriteData(1, false, make([]byte, min(n, MaxFrameSize))) })
	}
}

func (p pinged) ping(payload byte) {
	p.write(func(fr *http2.Framer) error { return fr.WritePing(false, [8]byte{payload}) })
}

func (p pinged) write(frame func(*http2.Framer) error) {
	p.t.Helper()
	if err := frame(http2.NewFramer(p.trackedConn, nil)); err != nil {
		p.t.Fatal(err)
	}
}

// hear has the client send a frame.
func (p pinged) hear(frame func(*http2.Framer) error) {
	p.Follow(wiretest.ClientBytes(func(fr *http2.Framer) { _ = frame(fr) })[len(http2.ClientPreface):])
}

func (p pinged) answer(payload byte) {
	p.hear(func(fr *http2.Framer) error { return fr.WritePing(true, [8]byte{payload}) })
}

// answerRead has the client answer the PING of AskRead behind so many bytes.
func (p pinged) answerRead(n uint32) {
	p.hear(func(fr *http2.Framer) error {
		return fr.WritePing(true, [8]byte(binary.BigEndian.AppendUint32([]byte(readPing), n)))
	})
}

func (p pinged) widen(stream uint32, n int) {
	p.hear(func(fr *http2.Framer) error { return fr.WriteWindowUpdate(stream, uint32(n)) })
}

// TestIsMute: the client has the timeout, and a second for each 16 KiB that it may have to
// read before it has the PING.
func TestIsMute(t *testing.T) {
	const (
		rate  = 16 << 10 // bytes that make a second
		never = time.Hour
	)
	for name, test := range map[string]struct {
		do     func(p pinged)
		more   time.Duration // than the timeout, from the end of do; never: it is not mute
		native bool
	}{
		"no PING":        {func(p pinged) { p.data(rate) }, never, false},
		"nothing before": {func(p pinged) { p.ping(1) }, 0, false},
		"DATA before":    {func(p pinged) { p.data(10 * rate); p.ping(1) }, 10 * time.Second, false},
		"DATA behind":    {func(p pinged) { p.ping(1); p.data(10 * rate) }, 0, false},
		"very much DATA": {func(p pinged) { p.data(1000 * rate); p.ping(1) }, moments.LongestQueue, false},
		"answered":       {func(p pinged) { p.ping(1); p.answer(1) }, never, false},
		"another answer": {func(p pinged) { p.ping(1); p.hear(otherAnswer) }, 0, false},
		"read before":    {func(p pinged) { p.data(10 * rate); p.ping(1); p.answer(1); p.data(3 * rate); p.ping(2) }, 3 * time.Second, false},
		// The client may have enlarged the window, and read nothing.
		"wider before":     {func(p pinged) { p.data(10 * rate); p.widen(0, 4*rate); p.ping(1) }, 10 * time.Second, false},
		"wider behind":     {func(p pinged) { p.data(10 * rate); p.ping(1); p.widen(0, 4*rate) }, 10 * time.Second, false},
		"much wider":       {func(p pinged) { p.data(10 * rate); p.widen(0, 1<<30); p.data(3 * rate); p.ping(1) }, 13 * time.Second, false},
		"asked":            {func(p pinged) { p.data(13 * rate); p.answerRead(10 * rate); p.ping(1) }, 3 * time.Second, false},
		"asked behind":     {func(p pinged) { p.data(10 * rate); p.ping(1); p.data(rate); p.answerRead(11 * rate) }, 0, false},
		"asked, and again": {func(p pinged) { p.data(10 * rate); p.answerRead(10 * rate); p.answerRead(5 * rate); p.ping(1) }, 0, false},
		"made up":          {func(p pinged) { p.data(10 * rate); p.answerRead(11 * rate); p.ping(1) }, 10 * time.Second, false},
		"heard": {func(p pinged) {
			p.ping(1)
			time.Sleep(keepaliveTimeout / 2)
			p.widen(1, 1)
		}, 0, false},
		"second PING": {func(p pinged) {
			p.ping(0)
			time.Sleep(keepaliveTimeout / 2)
			p.ping(0)
		}, -keepaliveTimeout / 2, true},
		"native":                    {func(p pinged) { p.data(10 * rate); p.ping(0) }, 10 * time.Second, true},
		"native, answered":          {func(p pinged) { p.ping(0); p.answer(0) }, never, true},
		"measures the bandwidth":    {func(p pinged) { p.ping(2) }, never, true},
		"answers another of native": {func(p pinged) { p.ping(0); p.ping(2); p.answer(2) }, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := newTracked(&wireConn{}, Options{NetHTTP: !test.native})
				p := pinged{c, t}
				p.write(func(fr *http2.Framer) error { return fr.WriteSettings() })
				p.Follow([]byte(http2.ClientPreface))
				test.do(p)
				if test.more == never {
					time.Sleep(never)
					if p.IsMute(keepaliveTimeout) {
						t.Error("it is mute")
					}
					return
				}
				time.Sleep(keepaliveTimeout + test.more - time.Millisecond)
				if p.IsMute(keepaliveTimeout) {
					t.Error("it is mute too early")
				}
				time.Sleep(time.Millisecond)
				if !p.IsMute(keepaliveTimeout) {
					t.Error("it is not mute")
				}
			})
		})
	}
}

// otherAnswer writes the answer to a PING of the Track's own.
func otherAnswer(fr *http2.Framer) error { return fr.WritePing(true, goAwayPing) }

// TestReading: what shows that the client reads moves a number, and nothing else does.
func TestReading(t *testing.T) {
	c, _ := newTracked(&wireConn{}, Options{NetHTTP: true})
	p := pinged{c, t}
	p.write(func(fr *http2.Framer) error { return fr.WriteSettings() })
	p.Follow([]byte(http2.ClientPreface))
	p.data(1 << 20)
	p.ping(1)
	for _, step := range []struct {
		name   string
		do     func()
		reads  bool
		unread uint64
	}{
		{"more DATA", func() { p.data(1 << 20) }, false, 2 << 20},
		{"a stream's window", func() { p.widen(1, 1<<20) }, false, 2 << 20},
		{"the answer to a PING that was not sent", func() { p.hear(otherAnswer) }, false, 2 << 20},
		{"the connection's window", func() { p.widen(0, 1<<30) }, true, 2 << 20},
		{"the answer to a PING", func() { p.answer(1) }, true, 1 << 20},
		{"the answer to AskRead", func() { p.answerRead(2 << 20) }, true, 0},
		{"the same once more", func() { p.answerRead(2 << 20) }, false, 0},
	} {
		before := p.Reading()
		step.do()
		if reads, unread := p.Reading() != before, p.Unread(); reads != step.reads || unread != step.unread {
			t.Errorf("%s: the number moves %t, want %t; %d bytes unread, want %d", step.name, reads, step.reads, unread, step.unread)
		}
	}
}
