package rfc6455

import (
	"bufio"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/muxserve/muxserve/testdata/conformance/internal/served"
)

const (
	// peerTimeout ends a case that hangs.
	peerTimeout = 20 * time.Second
	// dropTimeout is how long the server may keep the connection open behind
	// its close frame, when the client has sent one too. It is Autobahn's default.
	dropTimeout = time.Second
	// handshakeKey and acceptGUID are from RFC 6455, section 1.3.
	handshakeKey = "dGhlIHNhbXBsZSBub25jZQ=="
	acceptGUID   = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

	handshake = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + handshakeKey + "\r\n\r\n"
)

// The close codes that are not on the wire (RFC 6455, section 7.4.1).
const (
	noStatus = 1005 // A close frame without a code.
	noClose  = 1006 // No close frame at all.
)

// outcome is what the client saw.
type outcome struct {
	Received []string // The messages and pongs before the close frame, by describe.
	Close    int      // The code of the server's close frame.
	Fault    string   // Empty: the connection ended in time behind the close frame.
}

// describe names a message, a long one by its checksum.
func describe(opcode byte, payload []byte) string {
	kind := map[byte]string{opText: "text", opBinary: "binary", opPong: "pong"}[opcode]
	if kind == "" {
		kind = fmt.Sprintf("opcode %#x", opcode)
	}
	const long = 130
	if len(payload) > long {
		return fmt.Sprintf("%s of %d bytes, %08x", kind, len(payload), crc32.ChecksumIEEE(payload))
	}
	return fmt.Sprintf("%s %q", kind, payload)
}

// peer is the client's end of one WebSocket. One goroutine writes and one reads.
type peer struct {
	conn     net.Conn
	r        *bufio.Reader
	gotClose chan struct{} // Closed when the server's close frame is there.

	mu        sync.Mutex
	sentClose bool // Guarded by mu.
}

// connect opens a connection to s.
func connect(t *testing.T, s served.Server) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	if s.Roots != nil {
		conn = tls.Client(conn, &tls.Config{RootCAs: s.Roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12})
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(peerTimeout)); err != nil {
		t.Fatal(err)
	}
	return &peer{conn: conn, r: bufio.NewReader(conn), gotClose: make(chan struct{})}
}

// open performs the handshake; first is written behind it in the same segment.
func (p *peer) open(first []byte) error {
	if _, err := p.conn.Write(append([]byte(handshake), first...)); err != nil {
		return err
	}
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil {
		return err
	}
	sum := sha1.Sum([]byte(handshakeKey + acceptGUID))
	accept := base64.StdEncoding.EncodeToString(sum[:])
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Accept") != accept {
		return fmt.Errorf("rfc6455: handshake answered %s, %v", resp.Status, resp.Header)
	}
	return nil
}

// send writes the frames, each with a write of its own or in pieces of chop bytes.
// It stops without an error where the server has closed the connection.
func (p *peer) send(frames []frame, chop int) error {
	for _, f := range frames {
		b := f.encode()
		if f.opcode == opClose {
			p.mu.Lock()
			p.sentClose = true
			p.mu.Unlock()
		}
		size := len(b)
		if chop > 0 {
			size = chop
		}
		for piece := range slices.Chunk(b, size) {
			if _, err := p.conn.Write(piece); err != nil {
				select {
				case <-p.gotClose:
					return nil
				default:
					return err
				}
			}
		}
	}
	return nil
}

// answerClose closes the client's side, unless it has done so.
func (p *peer) answerClose() {
	p.mu.Lock()
	sent := p.sentClose
	p.sentClose = true
	p.mu.Unlock()
	if !sent {
		// The server may have given up reading, which is its right.
		_, _ = p.conn.Write(closing(1000, "").encode())
	}
}

// receive reads until the connection ends.
func (p *peer) receive() outcome {
	o := outcome{Close: noClose}
	var message []byte
	var opcode byte
	for {
		f, err := readFrame(p.r)
		if err != nil {
			o.Fault = faultOf(err, o.Close)
			return o
		}
		switch {
		case o.Close != noClose:
			o.Fault = fmt.Sprintf("opcode %#x behind the close frame", f.opcode)
			return o
		case f.opcode == opClose:
			o.Close = noStatus
			if len(f.payload) >= 2 {
				o.Close = int(binary.BigEndian.Uint16(f.payload))
			}
			close(p.gotClose)
			p.answerClose()
			_ = p.conn.SetReadDeadline(time.Now().Add(dropTimeout))
		case f.opcode > opClose:
			o.Received = append(o.Received, describe(f.opcode, f.payload))
		default:
			if f.opcode != opContinuation {
				opcode = f.opcode
			}
			message = append(message, f.payload...)
			if !f.more {
				o.Received = append(o.Received, describe(opcode, message))
				message = nil
			}
		}
	}
}

// keptOpen is the fault of a server that does not end the connection.
const keptOpen = "still open a second after both close frames"

// faultOf says what is wrong with a connection that ended with err, where the
// server's close frame had the given code.
func faultOf(err error, code int) string {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		// A server that refuses a frame need not read what comes behind it, and its
		// kernel resets the connection then.
		return ""
	case errors.Is(err, os.ErrDeadlineExceeded) && code != noClose:
		return keptOpen
	}
	return err.Error()
}
