package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// framer is a client that writes each frame itself. Like gRPC's clients it
// waits for the server's SETTINGS, and like some others for the ACK of its own.
type framer struct {
	// pings is how many PINGs must be answered before the first request.
	pings int
	// eager leaves the waiting out: all goes out at once.
	eager bool
	// piece is how many bytes go out at a time until the first request is out; 0 stands for all.
	piece int
}

// framerAtOnce is how many of its connections are open at the same time. With a
// pause that is all that takes time.
const framerAtOnce = 50

// ask is a [client].
func (f framer) ask(ctx context.Context, t target) (int, error) {
	var answered atomic.Int64
	err := eachConnection(t.load.connections, func(int) error {
		n, err := f.connection(ctx, t)
		answered.Add(int64(n))
		return err
	})
	return int(answered.Load()), err
}

// eachConnection calls one for the numbers below n, framerAtOnce at the same time.
func eachConnection(n int, one func(i int) error) error {
	var wg sync.WaitGroup
	slots := make(chan struct{}, framerAtOnce)
	errs := make([]error, n)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = one(i)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// connection makes the requests of one connection and returns how many were answered.
func (f framer) connection(ctx context.Context, t target) (int, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", t.addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	h := &http2Conn{conn: conn, piece: f.piece}
	h.Framer = http2.NewFramer(&h.out, conn)
	h.encoder = hpack.NewEncoder(&h.block)
	h.out.WriteString(http2.ClientPreface)
	if err := h.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}); err != nil {
		return 0, err
	}
	if !f.eager {
		if err := h.open(f.pings); err != nil {
			return 0, err
		}
	}
	if err := sleep(ctx, t.pause); err != nil {
		return 0, err
	}
	for i := range t.load.each {
		if err := h.get(uint32(2*i+1), t.addr, "/echo"); err != nil { // Client streams are odd; RFC 9113, section 5.1.1.
			return 0, err
		}
	}
	return h.answers(t.load.each)
}

// http2Conn is one connection of a framer. What is written waits in out until flush.
type http2Conn struct {
	*http2.Framer

	conn    net.Conn
	out     bytes.Buffer
	piece   int
	block   bytes.Buffer // A header block, by encoder.
	encoder *hpack.Encoder

	settings, acks, pongs int
}

// flush sends what was written.
func (h *http2Conn) flush() error {
	if h.piece == 0 {
		_, err := h.out.WriteTo(h.conn)
		return err
	}
	for h.out.Len() > 0 {
		if _, err := h.conn.Write(h.out.Next(h.piece)); err != nil {
			return err
		}
	}
	return nil
}

// open waits until both SETTINGS are acknowledged and the PINGs answered.
func (h *http2Conn) open(pings int) error {
	for i := range pings {
		if err := h.WritePing(false, [8]byte{byte(i)}); err != nil {
			return err
		}
	}
	if err := h.flush(); err != nil {
		return err
	}
	for h.settings == 0 || h.acks == 0 || h.pongs < pings {
		if _, err := h.read(); err != nil {
			return fmt.Errorf("framer: after %d SETTINGS, %d ACKs and %d PONGs: %w", h.settings, h.acks, h.pongs, err)
		}
	}
	return h.flush()
}

// read reads a frame and does what every client has to.
func (h *http2Conn) read() (http2.Frame, error) {
	frame, err := h.ReadFrame()
	if err != nil {
		return nil, err
	}
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			h.acks++
			return frame, nil
		}
		h.settings++
		return frame, h.WriteSettingsAck()
	case *http2.PingFrame:
		if f.IsAck() {
			h.pongs++
			return frame, nil
		}
		return frame, h.WritePing(true, f.Data)
	case *http2.GoAwayFrame:
		return nil, fmt.Errorf("framer: GOAWAY %v", f.ErrCode)
	case *http2.RSTStreamFrame:
		return nil, fmt.Errorf("framer: RST_STREAM %v", f.ErrCode)
	}
	return frame, nil
}

// get writes a request.
func (h *http2Conn) get(stream uint32, authority, path string) error {
	h.block.Reset()
	for _, field := range []hpack.HeaderField{
		{Name: ":method", Value: "GET"},
		{Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: authority},
		{Name: ":path", Value: path},
	} {
		if err := h.encoder.WriteField(field); err != nil {
			return err
		}
	}
	return h.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: h.block.Bytes(), EndStream: true, EndHeaders: true,
	})
}

// answers reads until n streams have ended, and returns how many said 200.
func (h *http2Conn) answers(n int) (int, error) {
	if err := h.flush(); err != nil {
		return 0, err
	}
	h.piece = 0
	h.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var good, ended int
	for ended < n || h.acks == 0 {
		frame, err := h.read()
		if err != nil {
			return good, err
		}
		if err := h.flush(); err != nil {
			return good, err
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			if f.PseudoValue("status") == "200" {
				good++
			}
			if f.StreamEnded() {
				ended++
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				ended++
			}
		}
	}
	return good, nil
}
