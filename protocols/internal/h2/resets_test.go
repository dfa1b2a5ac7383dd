package h2

import (
	"bytes"
	"net"
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
	early  bool // the owner knew of the flood before the client was told
}

func newFlooder(most int) *flooder {
	f := &flooder{inner: &wireConn{}}
	f.conn, f.track = newTracked(f.inner, Options{MaxResetsPerMinute: most, Watch: &Watch{OnFlood: func(net.Conn) {
		f.floods++
		told, _ := f.track.GoneAway()
		f.early = !told
	}}})
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

// fault has the server break a stream off, for what the client has done.
func (f *flooder) fault(stream uint32, code http2.ErrCode) {
	_, _ = f.conn.Write(wiretest.ClientBytes(func(fr *http2.Framer) { _ = fr.WriteRSTStream(stream, code) })[len(http2.ClientPreface):])
}

// begun returns a flooder on a connection with a stream that was reset: from there on what
// happens is noted.
func begun(most int) *flooder {
	f := newFlooder(most)
	f.flood(1)
	return f
}

func TestResetsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := begun(10)
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
		sleepPast()
		want := slices.Concat(firstGoAway(), goAwayPingFrame())
		if diff := cmp.Diff(want, f.inner.wrote.Bytes()); diff != "" {
			t.Errorf("wrote (-want +got):\n%s", diff)
		}
		told(t, f.conn, true, false)
	})
}

// TestWhichResetsCount: an honest client may cancel as much as it likes.
func TestWhichResetsCount(t *testing.T) {
	const many = 1000
	each := func(do func(f *flooder)) func(*flooder) {
		return func(f *flooder) {
			for range many {
				f.open()
				do(f)
			}
		}
	}
	for name, test := range map[string]struct {
		do     func(f *flooder)
		floods int
	}{
		"at once": {each(func(f *flooder) { f.reset(f.stream) }), 1},
		"when the server has ended them": {each(func(f *flooder) {
			f.end(f.stream)
			f.reset(f.stream)
		}), 0},
		"when the server has answered": {each(func(f *flooder) {
			_, _ = f.conn.Write(wiretest.ClientBytes(func(fr *http2.Framer) {
				_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: f.stream, EndHeaders: true})
			})[len(http2.ClientPreface):])
			f.reset(f.stream)
		}), 0},
		"after a while": {each(func(f *flooder) {
			time.Sleep(2 * rapidAge)
			f.reset(f.stream)
		}), 0},
		"many at a time after a while": {func(f *flooder) {
			first := f.stream + 2
			for range many {
				f.open()
			}
			time.Sleep(2 * rapidAge)
			for ; first <= f.stream; first += 2 {
				f.reset(first)
			}
		}, 0},
		"many at a time at once": {func(f *flooder) {
			first := f.stream + 2
			for range many {
				f.open()
			}
			for ; first <= f.stream; first += 2 {
				f.reset(first)
			}
		}, 1},
		"half of them": {each(func(f *flooder) {
			f.end(f.stream)
			f.flood(1)
		}), 0},
		"more than half of them": {each(func(f *flooder) {
			f.end(f.stream)
			f.flood(2)
		}), 1},
		"behind a gap": {func(f *flooder) {
			f.stream += 10 * recentStreams // The client leaves streams out.
			f.flood(many)
		}, 1},
		"by illegal frames": {each(func(f *flooder) { f.fault(f.stream, http2.ErrCodeProtocol) }), 1},
		"by illegal frames after a while": {each(func(f *flooder) {
			time.Sleep(2 * rapidAge)
			f.fault(f.stream, http2.ErrCodeFlowControl)
		}), 1},
		"beside resets of one that has ended long ago": {func(f *flooder) {
			for range many {
				f.open()
				f.end(f.stream)
			}
			for range 2 * many {
				time.Sleep(time.Millisecond) // So the last ones known are not young.
				f.flood(1)
				f.reset(1)
			}
		}, 1},
		"by illegal frames, and then by itself": {func(f *flooder) {
			const batch = 50
			each(func(f *flooder) { f.end(f.stream) })(f)
			for range 2 * many / batch {
				first := f.stream + 2
				for range batch {
					f.open()
					f.fault(f.stream, http2.ErrCodeProtocol)
				}
				time.Sleep(2 * rapidAge)
				for ; first <= f.stream; first += 2 {
					f.reset(first)
				}
			}
		}, 1},
		"by data behind the answer": {each(func(f *flooder) {
			f.end(f.stream)
			f.fault(f.stream, http2.ErrCodeStreamClosed)
		}), 0},
		"beside many that are refused": {each(func(f *flooder) {
			f.fault(f.stream, http2.ErrCodeRefusedStream)
			f.fault(f.stream, http2.ErrCodeProtocol)
			f.open()
			f.fault(f.stream, http2.ErrCodeRefusedStream)
			f.flood(1)
		}), 1},
		"refused": {each(func(f *flooder) {
			f.fault(f.stream, http2.ErrCodeRefusedStream)
			f.reset(f.stream)
			f.fault(f.stream, http2.ErrCodeProtocol)
		}), 0},
		"by the server": {each(func(f *flooder) { f.fault(f.stream, http2.ErrCodeInternal) }), 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := begun(100)
				test.do(f)
				synctest.Wait()
				if f.floods != test.floods {
					t.Errorf("%d floods, want %d", f.floods, test.floods)
				}
			})
		})
	}
}

// TestDataBehindManyAnswers: data that crosses the answers of any streams breaks no rule, however
// many there are and have been since. It does on those that are open.
func TestDataBehindManyAnswers(t *testing.T) {
	const streams = 1000
	for name, floods := range map[string]int{"answered": 0, "open": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFlooder(100)
				f.flood(1) // From now on it is known what becomes of streams.
				first := f.stream + 2
				for range streams {
					f.open()
				}
				last := f.stream
				for range streams / 2 {
					f.open()
					f.end(f.stream)
				}
				for stream := first; stream <= last; stream += 2 {
					if floods == 0 {
						f.end(stream)
					}
				}
				for stream := first; stream <= last; stream += 2 {
					f.fault(stream, http2.ErrCodeStreamClosed)
					f.fault(stream, http2.ErrCodeStreamClosed)
				}
				synctest.Wait()
				if f.floods != floods {
					t.Errorf("%d floods, want %d", f.floods, floods)
				}
			})
		})
	}
}

// TestAnswersBeforeResets: where requests and their resets are read together, because the link
// has stood still, what was answered before speaks for the client, within bounds.
func TestAnswersBeforeResets(t *testing.T) {
	const most = 100
	for _, test := range []struct{ answers, resets, floods int }{
		{0, most + 10, 1},
		{1000, 900, 0},
		{500, 900, 1},
		{5 * answersBefore * most, answersBefore*most - 10, 0},
		{5 * answersBefore * most, answersBefore*most + 10, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFlooder(most)
			for range test.answers {
				f.open()
				f.end(f.stream)
			}
			f.flood(test.resets)
			synctest.Wait()
			if f.floods != test.floods {
				t.Errorf("%d answers, %d resets: %d floods, want %d", test.answers, test.resets, f.floods, test.floods)
			}
		})
	}
}

// TestOwnerKnowsFirst: the owner knows of a flood before the client does, so that it also knows
// why the connection ends where the client leaves at once.
func TestOwnerKnowsFirst(t *testing.T) {
	for name, breakOff := range map[string]func(*flooder){
		"the client's resets": func(f *flooder) { f.reset(f.stream) },
		"the server's":        func(f *flooder) { f.fault(f.stream, http2.ErrCodeProtocol) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFlooder(1)
				for f.floods == 0 {
					f.open()
					breakOff(f)
					synctest.Wait()
				}
				if !f.early {
					t.Error("the client was told before the owner")
				}
			})
		})
	}
}

// TestStreamsBehindResets: a client may open eight times as many streams behind the GOAWAY as
// it may have open, because it has not read that yet. One more ends the connection, and the
// server gets none of what the client has sent with it.
func TestStreamsBehindResets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const streams = 5
		f := &flooder{inner: &wireConn{}, stream: ^uint32(0)}
		f.conn, f.track = newTracked(f.inner, Options{MaxResetsPerMinute: 10, MaxStreams: streams})
		f.track.Follow([]byte(http2.ClientPreface))
		_, _ = f.conn.Write(serverSettings())
		f.flood(12)
		for range 8 * streams {
			f.open()
		}
		if f.inner.closed {
			t.Fatal("closed for streams that may have crossed the GOAWAY")
		}
		if passed := f.track.Follow(openings(f.stream+2, f.stream+4)); passed != 0 || !f.inner.closed {
			t.Errorf("the server gets %d bytes, closed %t", passed, f.inner.closed)
		}
		want := AppendGoAway(nil, f.stream+2, http2.ErrCodeEnhanceYourCalm, resetsDebug)
		if got := f.inner.wrote.Bytes(); !bytes.HasSuffix(got, want) {
			t.Errorf("wrote %x, want %x at its end", got, want)
		}
	})
}

// openings are the frames that open these streams.
func openings(streams ...uint32) []byte {
	return wiretest.ClientBytes(func(fr *http2.Framer) {
		for _, s := range streams {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s, EndHeaders: true})
		}
	})[len(http2.ClientPreface):]
}

// TestResetsWithoutBound are not even counted.
func TestResetsWithoutBound(t *testing.T) {
	f := newFlooder(0)
	f.flood(1000)
	if f.floods != 0 || f.track.resets.Load() != nil {
		t.Error("resets were counted")
	}
}

// TestResetsBehindLast: one GOAWAY that names the last stream is enough.
func TestResetsBehindLast(t *testing.T) {
	f := begun(1)
	f.open()
	f.conn.FinalGoAway()
	f.flood(2)
	if f.floods != 1 {
		t.Errorf("%d floods", f.floods)
	}
	want := AppendGoAway(nil, 3, http2.ErrCodeNo, "")
	if diff := cmp.Diff(want, f.inner.wrote.Bytes()); diff != "" {
		t.Errorf("wrote (-want +got):\n%s", diff)
	}
}
