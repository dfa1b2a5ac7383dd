package sniff

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
)

// errNotClientHello is the error of [ReadServerName] where r begins with something
// else than the record of a TLS handshake.
var errNotClientHello = errors.New("sniff: not a TLS ClientHello")

// ReadServerName reads the TLS ClientHello that r begins with and returns its server
// name (RFC 6066, section 3), or "" where it has none. The message may span several
// records. crypto/tls reads it, and refuses one of more than 64 KiB.
func ReadServerName(r io.Reader) (name string, err error) {
	// The first byte is checked before more is waited for, because the client of another
	// protocol may be waiting for its answer.
	var first [1]byte
	if _, err := io.ReadFull(r, first[:]); err != nil {
		return "", err
	}
	if first[0] != tlsRecordHandshake {
		return "", errNotClientHello
	}
	found := false
	stop := func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		name, found = hello.ServerName, true
		return nil, errors.New("enough")
	}
	conn := helloConn{Reader: io.MultiReader(bytes.NewReader(first[:]), r)}
	if err := tls.Server(conn, &tls.Config{GetConfigForClient: stop}).HandshakeContext(context.Background()); !found {
		return "", fmt.Errorf("sniff: read a TLS ClientHello: %w", err)
	}
	return name, nil
}

// helloConn is a connection of which crypto/tls reads the ClientHello. The alert that it
// answers goes nowhere.
type helloConn struct {
	io.Reader
	noConn
}

// noConn is embedded more deeply than the Reader, whose Read hides its own.
type noConn struct{ net.Conn }

// Write implements [net.Conn].
func (helloConn) Write(p []byte) (int, error) { return len(p), nil }
