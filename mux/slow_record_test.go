package mux_test

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/mux"
)

// slowLink sends what is written in pieces, a pause behind each.
type slowLink struct {
	net.Conn
	pieces int // 0: all at once
	pause  time.Duration
}

func (l *slowLink) Write(p []byte) (n int, err error) {
	for i := range l.pieces {
		wrote, err := l.Conn.Write(p[n : len(p)*(i+1)/(l.pieces+1)])
		if n += wrote; err != nil {
			return n, err
		}
		time.Sleep(l.pause)
	}
	rest, err := l.Conn.Write(p[n:])
	return n + rest, err
}

// TestSlowRecord: a TLS record whose bytes keep coming has the time of a head.
func TestSlowRecord(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	all := startOn(t, false, []listeners.Config{
		{TLS: listeners.TLSConfig{Mode: "self-signed"}},
		{TLS: listeners.TLSConfig{Mode: "self-signed", Optional: true}},
	}, mux.Configure(func(c *mux.Config) {
		c.Sniff.Timeout, c.HTTP1.IdleTimeout, c.HTTP1.HeaderTimeout = timeout, timeout, time.Minute
	}))
	for i, form := range []string{"TLS", "optional TLS"} {
		for name, test := range map[string]struct{ alpn, send, want string }{
			"HTTP/1.1": {"http/1.1", "GET /echo HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"},
			"HTTP/2":   {"h2", get2(t, "/echo"), "\x01\x05\x00\x00\x00\x01" /* HEADERS that end the stream */},
		} {
			t.Run(form+", "+name, func(t *testing.T) {
				t.Parallel()
				link := &slowLink{Conn: all[i].dial(t), pause: timeout / 4}
				conn := tls.Client(link, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{test.alpn}})
				if err := conn.Handshake(); err != nil {
					t.Fatal(err)
				}
				link.pieces = 10
				send(t, conn, test.send)
				link.pieces = 0
				var got strings.Builder
				for b := make([]byte, 4096); !strings.Contains(got.String(), test.want); {
					n, err := conn.Read(b)
					if got.Write(b[:n]); err != nil {
						t.Fatalf("%q, %v", got.String(), err)
					}
				}
			})
		}
	}
	t.Run("silent", func(t *testing.T) {
		t.Parallel()
		conn := tls.Client(all[0].dial(t), &tls.Config{InsecureSkipVerify: true})
		if err := conn.Handshake(); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), io.EOF.Error()) {
			t.Errorf("the client sees %v", err)
		}
	})
}
