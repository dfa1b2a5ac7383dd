package websocket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"unicode/utf8"

	coder "github.com/coder/websocket"
)

// errNotUTF8 ends a text message at the first byte that is not UTF-8.
var errNotUTF8 = errors.New("websocket: text is not UTF-8")

// ReadMessage reads a message into buf, which it empties first. It closes the WebSocket
// with 1007 at the first byte of a text that is not UTF-8 (RFC 6455 section 8.1), which
// coder/websocket does not check. It returns errors as [coder.Conn.Reader] does.
func ReadMessage(ctx context.Context, c *coder.Conn, buf *bytes.Buffer) (coder.MessageType, error) {
	kind, r, err := c.Reader(ctx)
	if err != nil {
		return 0, err
	}
	buf.Reset()
	if kind != coder.MessageText {
		_, err = buf.ReadFrom(r)
		return kind, err
	}
	var text utf8Checker
	if _, err = buf.ReadFrom(io.TeeReader(r, &text)); err == nil && len(text.partial) > 0 {
		err = errNotUTF8
	}
	if errors.Is(err, errNotUTF8) {
		// It fails where the client does not answer, which is of no interest here.
		_ = c.Close(coder.StatusInvalidFramePayloadData, "text is not UTF-8")
		err = coder.CloseError{Code: coder.StatusInvalidFramePayloadData, Reason: "text is not UTF-8"}
	}
	return kind, err
}

// utf8Checker is a writer that fails at the first byte that cannot be part of UTF-8.
type utf8Checker struct {
	partial []byte // a code point that is incomplete
	joined  [utf8.UTFMax]byte
}

// Write implements [io.Writer].
func (c *utf8Checker) Write(p []byte) (int, error) {
	n := len(p)
	for len(c.partial) > 0 && len(p) > 0 {
		c.partial = append(c.partial, p[0])
		p = p[1:]
		if !utf8.FullRune(c.partial) {
			continue
		}
		if !utf8.Valid(c.partial) {
			return 0, errNotUTF8
		}
		c.partial = nil
	}
	whole := len(p)
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		if tail := p[len(p)-i:]; utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				whole = len(p) - i
			}
			break
		}
	}
	if !utf8.Valid(p[:whole]) {
		return 0, errNotUTF8
	}
	if whole < len(p) {
		c.partial = append(c.joined[:0], p[whole:]...)
	}
	return n, nil
}
