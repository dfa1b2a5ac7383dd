package sniff

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

const recordHeaderLen = 5

// clientHelloBytes returns the first flight of crypto/tls's client.
func clientHelloBytes(tb testing.TB, config *tls.Config) []byte {
	tb.Helper()
	client, server := net.Pipe()
	config.InsecureSkipVerify = true // The handshake ends before any certificate.
	handshake := make(chan error, 1)
	go func() { handshake <- tls.Client(client, config).HandshakeContext(tb.Context()) }()
	// A pipe gives one write to one read.
	buf := make([]byte, 1<<16)
	n, err := server.Read(buf)
	if err != nil {
		tb.Fatal(err)
	}
	server.Close()
	if err := <-handshake; err == nil {
		tb.Fatal("the handshake ended well without a server")
	}
	client.Close()
	return buf[:n]
}

// splitRecords spreads the payload of one record over records of n bytes.
func splitRecords(record []byte, n int) []byte {
	var out []byte
	for payload := record[recordHeaderLen:]; len(payload) > 0; {
		n := min(n, len(payload))
		out = append(out, record[:3]...)
		out = binary.BigEndian.AppendUint16(out, uint16(n))
		out = append(out, payload[:n]...)
		payload = payload[n:]
	}
	return out
}

// isCutShort reports whether a reader has ended too early.
func isCutShort(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func TestReadServerName(t *testing.T) {
	full := clientHelloBytes(t, &tls.Config{ServerName: "example.org", NextProtos: []string{"h2", "http/1.1"}})
	bare := clientHelloBytes(t, &tls.Config{MaxVersion: tls.VersionTLS12})
	quantum := clientHelloBytes(t, &tls.Config{
		ServerName:       "example.org",
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519},
	})
	if len(quantum) < 1200 {
		t.Errorf("the post-quantum hello has %d bytes, which tests little", len(quantum))
	}
	const none = textError("none of it")
	tests := []struct {
		name   string
		prefix []byte
		want   string
		fails  bool
	}{
		{"nothing", nil, "", true},
		{"SNI and ALPN", full, "example.org", false},
		{"neither", bare, "", false},
		{"post-quantum", quantum, "example.org", false},
		{"one byte a record", splitRecords(full, 1), "example.org", false},
		{"post-quantum in fragments", splitRecords(quantum, 500), "example.org", false},
		{"bytes behind it", append(slices.Clip(full), 0x17, 3, 3), "example.org", false},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), "", true},
		{"another message", []byte{0x16, 3, 1, 0, 4, 2, 0, 0, 0}, "", true},
		{"record too long", []byte{0x16, 3, 1, 0xff, 1}, "", true},
		{"hello too long", []byte{0x16, 3, 1, 0, 4, 1, 1, 0, 1}, "", true},
		{"hello of nothing", []byte{0x16, 3, 1, 0, 4, 1, 0, 0, 0}, "", true},
		{"alert between the records", append(splitRecords(full[:20], 4), 0x15, 3, 1, 0, 2, 2, 40), "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, r := range []io.Reader{bytes.NewReader(tt.prefix), iotest.OneByteReader(bytes.NewReader(tt.prefix))} {
				// A reader that goes on would be waited for.
				got, err := ReadServerName(io.MultiReader(r, iotest.ErrReader(none)))
				if got != tt.want || tt.fails != (err != nil) || tt.prefix != nil && errors.Is(err, none) {
					t.Errorf("%q, %v; want %q, and an error: %v", got, err, tt.want, tt.fails)
				}
			}
		})
	}
	if _, err := ReadServerName(io.MultiReader(strings.NewReader("G"), iotest.ErrReader(none))); !errors.Is(err, errNotClientHello) {
		t.Errorf("one byte of another protocol: %v, want %v", err, errNotClientHello)
	}
	for i := range full {
		if _, err := ReadServerName(bytes.NewReader(full[:i])); !isCutShort(err) {
			t.Errorf("%d of %d bytes: %v, want an unexpected EOF", i, len(full), err)
		}
	}
}

type textError string

func (e textError) Error() string { return string(e) }

// BenchmarkReadServerName parses a hello of common length.
func BenchmarkReadServerName(b *testing.B) {
	hello := clientHelloBytes(b, &tls.Config{ServerName: "example.org", NextProtos: []string{"h2", "http/1.1"}})
	b.ReportAllocs()
	for b.Loop() {
		_, _ = ReadServerName(bytes.NewReader(hello))
	}
}
