package mux

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols"
)

const (
	// deniedTime is how long a connection whose protocol is not served may go on
	// sending, so that its client gets to see the answer instead of a reset (RFC 9112 section 9.6).
	deniedTime = time.Second
	// deniedBytes bounds what is read meanwhile.
	deniedBytes = 256 << 10
)

// denyConn tells a client in the words of its protocol that the listener does
// not serve it, and closes the connection.
func denyConn(c *conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(deniedTime))
	answer := denialHTTP1(c.root.allow)
	if p := c.verdict().Protocol; p == protocols.HTTP2 || p == protocols.GRPC {
		answer = denialHTTP2(c.root.allow)
	}
	// Where the client was greeted while it was being recognised, c takes the second SETTINGS out.
	if _, err := c.Write(answer); err != nil {
		return
	}
	if c.CloseWrite() == nil {
		drainConn(c.NetConn())
	}
}

// drainConn reads what the client still sends, past what was looked at before.
func drainConn(below net.Conn) {
	_, _ = io.Copy(io.Discard, io.LimitReader(struct{ io.Reader }{below}, deniedBytes))
}

// denialHTTP1 is a response that says which protocols there are instead (RFC 9110 section 15.6.6).
func denialHTTP1(a allow) []byte {
	text := "This port serves " + a.String() + ".\n"
	return []byte("HTTP/1.1 505 " + http.StatusText(http.StatusHTTPVersionNotSupported) + "\r\n" +
		"Content-Type: text/plain; charset=utf-8\r\n" +
		"Content-Length: " + strconv.Itoa(len(text)) + "\r\n" +
		"Connection: close\r\n\r\n" + text)
}

// denialHTTP2 is the server's preface, which must come first (RFC 9113 section 3.4), and
// the error that sends the client to HTTP/1.1 (section 7). No stream was processed.
func denialHTTP2(a allow) []byte {
	var out bytes.Buffer
	framer := http2.NewFramer(&out, nil)
	// Neither can fail: the buffer takes everything, and the text is far below a frame's size.
	_ = framer.WriteSettings()
	_ = framer.WriteGoAway(0, http2.ErrCodeHTTP11Required, []byte("this port serves "+a.String()))
	return out.Bytes()
}
