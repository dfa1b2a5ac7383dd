package h2

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// A flooder resets streams on a tracked connection.
type flooder struct {
	conn   *trackedConn
	track  *Track
	inner  *wireConn
	stream uint32
	floods int
}

func newFlooder(most int) *flooder {
	f := &flooder{inner: &wireConn{}}
	f.conn, f.track = newTracked(f.inner, Options{MaxResetsPerMinute: most, Watch: &Watch{OnFlood: func(*Track) { f.floods++ }}})
	f.stream = ^uint32(0)
	f.track.Follow([]byte(http2.ClientPreface))
	_, _ = f.conn.Write(serverSettings())
	f.inner.wrote.Reset()
	return f
}

func (f *flooder) client(write func(*http2.Framer)) {
	f.track.Follow(wiretest.ClientBytes(write)[len(http2.ClientPreface):])
}

// open opens the next stream.
func (f *flooder) open() {
	f.stream += 2
	f.client(func(fr *http2.Framer) {
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: f.stream, EndHeaders: true})
	})
}

// end ends a stream from the server's side.
func (f *flooder) end(stream uint32) {
	_, _ = f.conn.Write(wiretest.ClientBytes(func(fr *http2.Framer) { _ = fr.WriteData(stream, true, nil) })[len(http2.ClientPreface):])
}

func (f *flooder) reset(stream uint32) {
	f.client(func(fr *http2.Framer) { _ = fr.WriteRSTStream(stream, http2.ErrCodeCancel) })
}

// flood opens and resets n streams.
func (f *flooder) flood(n int) {
	for range n {
		f.open()
		f.reset(f.stream)
	}
}

func TestResetsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlooder(10)
		expect := func(when string, floods int) {
			t.Helper()
			if f.floods != floods {
				t.Fatalf("%s: %d floods, want %d", when, f.floods, floods)
			}
		}
		f.flood(10)
		expect("at the bound", 0)
		time.Sleep(90 * time.Second) // Half of them are in the window.
		f.flood(5)
		expect("a minute and a half later", 0)
		time.Sleep(time.Hour)
		f.flood(10)
		expect("an hour later", 0)
		f.flood(1)
		expect("above the bound", 1)
		f.flood(100)
		expect("far above", 1)
		want := AppendGoAway(nil, 51, http2.ErrCodeEnhanceYourCalm, resetsDebug)
		if diff := cmp.Diff(want, f.inner.wrote.Bytes()); diff != "" {
			t.Errorf("wrote (-want +got):\n%s", diff)
		}
		told(t, f.conn, true, true)
	})
}

// TestResetsOfEndedStreams cost the server nothing, and are what a gRPC client does.
func TestResetsOfEndedStreams(t *testing.T) {
	f := newFlooder(10)
	f.flood(1) // From here on the ends are noted.
	for range 1000 {
		f.open()
		f.end(f.stream)
		f.reset(f.stream)
	}
	if f.floods != 0 {
		t.Error("resets of streams that the server has ended were counted")
	}
	f.stream += 10 * endedStreams // The client leaves streams out.
	f.flood(10)
	if f.floods != 1 {
		t.Error("resets of new streams were not counted")
	}
}

// TestResetsWithoutBound are not even counted.
func TestResetsWithoutBound(t *testing.T) {
	f := newFlooder(0)
	f.flood(1000)
	if f.floods != 0 || f.track.resets.Load() != nil {
		t.Error("resets were counted")
	}
}

// TestCalmBehindOurs: the last stream does not grow.
func TestCalmBehindOurs(t *testing.T) {
	f := newFlooder(1)
	f.open()
	f.conn.FinalGoAway(http2.ErrCodeNo)
	f.flood(2)
	want := slices.Concat(AppendGoAway(nil, 1, http2.ErrCodeNo, ""), AppendGoAway(nil, 1, http2.ErrCodeEnhanceYourCalm, resetsDebug))
	if diff := cmp.Diff(want, f.inner.wrote.Bytes()); diff != "" {
		t.Errorf("wrote (-want +got):\n%s", diff)
	}
}
