package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// closeFrame is the first byte of a close frame (RFC 6455 section 5.2): the last of its message, opcode 8.
const closeFrame = 0x88

// muteTime is how long muxserve waits for a WebSocket peer to answer its close frame.
const muteTime = 5 * time.Second

// mute is a WebSocket client that never answers a close frame.
type mute struct {
	conn  net.Conn
	ended chan struct{} // closed when the connection has ended; what follows is set before
	code  uint16        // of the close frame; 0 without one
	at    time.Time
}

// newMute opens a WebSocket that says nothing after its handshake.
func newMute(ctx context.Context, address string) (*mute, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	r := bufio.NewReader(c)
	if err := handshake(c, r); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	m := &mute{conn: c, ended: make(chan struct{})}
	go m.read(r)
	return m, nil
}

// read waits for the close frame, and for the end.
func (m *mute) read(r *bufio.Reader) {
	defer close(m.ended)
	// A close frame with a code and no reason; a reason may follow.
	var frame [4]byte
	if _, err := io.ReadFull(r, frame[:]); err == nil && frame[0] == closeFrame {
		m.code = binary.BigEndian.Uint16(frame[2:])
	}
	_, _ = io.Copy(io.Discard, r) // Its error is the end of the connection.
	m.at = time.Now()
}

// verdict returns what is wrong with the way the WebSocket has ended, in a drain that began
// then: the close frame was sent behind that, and perhaps read late.
func (m *mute) verdict(began time.Time) error {
	<-m.ended
	const goingAway = 1001
	if m.code != goingAway {
		return fmt.Errorf("a mute WebSocket was closed with code %d, want %d", m.code, goingAway)
	}
	if waited := m.at.Sub(began); waited < muteTime {
		return fmt.Errorf("a mute WebSocket was cut %v after the drain began, want %v or more", waited, muteTime)
	}
	return nil
}

// newMutes opens n of them.
func newMutes(ctx context.Context, n int, address string) ([]*mute, error) {
	all := make([]*mute, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i], errs[i] = newMute(ctx, address) })
	}
	wg.Wait()
	return all, errors.Join(errs...)
}
