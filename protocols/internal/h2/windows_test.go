package h2

import (
	"bytes"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
)

// TestKeptWindows: updates of a stream's window are kept, and given to the client at once.
// Those of the connection and of other streams pass.
func TestKeptWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		update := func(stream, increment uint32) []byte {
			var b bytes.Buffer
			_ = http2.NewFramer(&b, nil).WriteWindowUpdate(stream, increment)
			return b.Bytes()
		}
		inner := &wireConn{}
		c, track := newTracked(inner, Options{NetHTTP: true})
		want := func(what string, frames ...[]byte) {
			t.Helper()
			synctest.Wait()
			if joined := bytes.Join(frames, nil); !bytes.Equal(inner.wrote.Bytes(), joined) {
				t.Errorf("%s: %x is written, want %x", what, inner.wrote.Bytes(), joined)
			}
			inner.wrote.Reset()
		}
		write := func(frames ...[]byte) {
			t.Helper()
			for _, frame := range frames {
				if n, err := c.Write(frame); n != len(frame) || err != nil {
					t.Fatal(n, err)
				}
			}
		}
		write(testSettings, update(1, 10))
		want("nothing is kept", testSettings, update(1, 10))

		if !track.KeepWindow(1) || !track.KeepWindow(5) {
			t.Fatal("nothing can be kept")
		}
		split := update(1, 30)
		write(update(1, 20), update(0, 100), update(3, 7), split[:5], split[5:11], split[11:], update(5, 1))
		want("two streams are kept", update(0, 100), update(3, 7))

		track.GiveWindow(1, false)
		want("one is given", update(1, 50))
		write(update(1, 60), update(5, 1))
		want("it is kept no more", update(1, 60))

		track.GiveWindow(5, true)
		write(update(5, 2))
		want("the other is over", update(5, 2))

		if !track.KeepWindow(7) {
			t.Fatal("nothing can be kept")
		}
		track.GiveWindow(7, false)
		want("nothing was kept")

		track.KeepWindow(9)
		data := AppendFrame(nil, http2.FrameData, 0, make([]byte, 100))
		write(update(9, 1), data[:50])
		track.GiveWindow(9, false)
		want("within a frame", data[:50])
		write(data[50:])
		want("behind it", data[50:], update(9, 1))
	})
	if _, native := newTracked(&wireConn{}, Options{}); native.KeepWindow(1) {
		t.Error("grpc-go's windows are kept")
	}
}
