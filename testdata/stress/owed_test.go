package stress

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

// owedSlack is how much more than net/http alone the server may keep for the clients of
// TestOwedFrames together. It is what its own books and pools grow by.
const owedSlack = 2 << 20

// TestOwedFrames floods the server with frames that it has to answer, behind a first
// request, on connections that come again when they are cut. Neither meanwhile nor behind
// the end of the connections may it keep more than net/http alone.
func TestOwedFrames(t *testing.T) {
	const clients = 6
	raw := func(typ http2.FrameType, stream uint32, payload string) string {
		return frames(func(f *http2.Framer) error { return f.WriteRawFrame(typ, 0, stream, []byte(payload)) })
	}
	hello := http2.ClientPreface + frames(func(f *http2.Framer) error {
		_ = f.WriteSettings()
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("\x82\x86\x84\x41\x01x"), EndHeaders: true})
	})
	for name, unit := range map[string]string{
		"PING":                raw(http2.FramePing, 0, "12345678"),
		"SETTINGS":            raw(http2.FrameSettings, 0, ""),
		"DATA behind the end": raw(http2.FrameData, 1, ""),
	} {
		t.Run(name, func(t *testing.T) {
			kept := make(map[string][2]int64)
			for _, form := range []string{"base", "mux"} {
				p := start(t, process.Options{Binary: embedding, Bare: true, Args: []string{form}})
				run := func(d time.Duration, meanwhile func()) {
					ctx, cancel := context.WithTimeout(t.Context(), d)
					defer cancel()
					var all sync.WaitGroup
					for i := range clients {
						all.Go(func() { owe(ctx, p.Addr, hello, many(unit), i%2 == 0) })
					}
					meanwhile()
					all.Wait()
				}
				run(200*time.Millisecond, func() {}) // The server's own tables.
				before := figures(t, p).Live
				var most int64
				run(pick(2*time.Second, 9*time.Second), func() {
					time.Sleep(pick(time.Second, 5*time.Second))
					most = figures(t, p).Live - before
				})
				kept[form] = [2]int64{most, figures(t, p).Live - before}
			}
			t.Logf("heap meanwhile and behind it, in KiB: net/http alone %d and %d, mux %d and %d",
				kept["base"][0]>>10, kept["base"][1]>>10, kept["mux"][0]>>10, kept["mux"][1]>>10)
			for i := range kept["mux"] {
				if kept["mux"][i] > max(kept["base"][i], 0)+owedSlack {
					t.Errorf("the server keeps %d bytes, net/http alone %d", kept["mux"][i], kept["base"][i])
				}
			}
		})
	}
}

// owe floods until ctx ends, on one connection after the other. A client that is deaf does
// not read.
func owe(ctx context.Context, addr, hello, unit string, deaf bool) {
	for ctx.Err() == nil {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			continue
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		if !deaf {
			go func() { _, _ = io.Copy(io.Discard, conn) }()
		}
		_, err = io.WriteString(conn, hello)
		for err == nil {
			_, err = io.WriteString(conn, unit)
		}
		stop()
		_ = conn.Close()
	}
}
