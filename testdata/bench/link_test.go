package main

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// TestLink: a link delivers the bytes of both directions and their ends, and not before their time.
func TestLink(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It is closed below.
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.Copy(struct{ io.Writer }{conn}, conn) // An echo.
	}()
	l := newLink(20 * time.Millisecond)
	defer l.close()
	address, err := l.through(t.Context(), listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", address) //nolint:noctx // It is closed below.
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sent := make([]byte, 1<<20)
	for i := range sent {
		sent[i] = byte(i >> 8)
	}
	// The last byte is sent when the link has sent all, arrives a half round trip later, and comes back in as long.
	least := time.Duration(len(sent))*time.Second/linkBytesPerSecond + 20*time.Millisecond
	started := time.Now()
	go func() {
		_, _ = conn.Write(sent)
		_ = conn.(*net.TCPConn).CloseWrite() //nolint:forcetypeassert // It is one.
	}()
	received, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(received, sent) {
		t.Errorf("%d bytes came back, %v, want all %d", len(received), err, len(sent))
	}
	if took := time.Since(started); took < least {
		t.Errorf("it took %v, want at least %v", took, least)
	}
}
