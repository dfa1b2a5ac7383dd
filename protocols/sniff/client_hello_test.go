package sniff

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/iotest"
	"time"
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
	return err == io.EOF || err == io.ErrUnexpectedEOF
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
	version := func(b []byte, minor byte) []byte {
		b = slices.Clone(b)
		b[2] = minor
		return b
	}
	const none = textError("none of it")
	tests := []struct {
		name   string
		prefix []byte
		want   string
		err    error
	}{
		{"nothing", nil, "", none},
		{"SNI and ALPN", full, "example.org", nil},
		{"neither", bare, "", nil},
		{"post-quantum", quantum, "example.org", nil},
		{"one byte a record", splitRecords(full, 1), "example.org", nil},
		{"post-quantum in fragments", splitRecords(quantum, 500), "example.org", nil},
		{"record version 03 02", version(full, 2), "example.org", nil},
		{"record version 03 03", version(full, 3), "example.org", nil},
		{"record version 03 05", version(full, 5), "", errNotClientHello},
		{"bytes behind it", append(slices.Clip(full), 0x17, 3, 3), "example.org", nil},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), "", errNotClientHello},
		{"one byte of another protocol", []byte("G"), "", errNotClientHello},
		{"three bytes of another protocol", []byte{0x16, 3, 5}, "", errNotClientHello},
		{"another message", []byte{0x16, 3, 1, 0, 4, 2, 0, 0, 0}, "", errNotClientHello},
		{"another message, cut", []byte{0x16, 3, 1, 0, 4, 2}, "", errNotClientHello},
		{"empty record", []byte{0x16, 3, 1, 0, 0}, "", errNotClientHello},
		{"record too long", []byte{0x16, 3, 1, 0x40, 1}, "", errNotClientHello},
		{"hello too long", []byte{0x16, 3, 1, 0, 4, 1, 1, 0, 1}, "", errNotClientHello},
		{"hello of nothing", []byte{0x16, 3, 1, 0, 4, 1, 0, 0, 0}, "", errNotClientHello},
		{"alert between the records", append(splitRecords(full[:20], 4), 0x15, 3, 1, 0, 2), "", errNotClientHello},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, r := range []io.Reader{bytes.NewReader(tt.prefix), iotest.OneByteReader(bytes.NewReader(tt.prefix))} {
				// A reader that goes on would be waited for.
				got, err := ReadServerName(io.MultiReader(r, iotest.ErrReader(none)))
				if got != tt.want || !errors.Is(err, tt.err) {
					t.Errorf("%q, %v; want %q, %v", got, err, tt.want, tt.err)
				}
			}
		})
	}
	for i := range full {
		if _, err := ReadServerName(bytes.NewReader(full[:i])); !isCutShort(err) {
			t.Errorf("%d of %d bytes: %v, want an unexpected EOF", i, len(full), err)
		}
	}
}

type textError string

func (e textError) Error() string { return string(e) }

// errSeen ends a handshake whose ClientHello was looked at.
var errSeen = errors.New("seen")

// FuzzReadServerName has crypto/tls's server as its oracle: both see the same name in a
// ClientHello.
func FuzzReadServerName(f *testing.F) {
	hello := clientHelloBytes(f, &tls.Config{ServerName: "example.org", NextProtos: []string{"h2", "http/1.1"}})
	f.Add(hello)
	f.Add(splitRecords(hello, 100))
	f.Add(clientHelloBytes(f, &tls.Config{MaxVersion: tls.VersionTLS12}))
	f.Fuzz(func(t *testing.T, b []byte) {
		seen, want := false, ""
		config := &tls.Config{GetConfigForClient: func(info *tls.ClientHelloInfo) (*tls.Config, error) {
			seen, want = true, info.ServerName
			return nil, errSeen
		}}
		oracleErr := tls.Server(&mute{Reader: bytes.NewReader(b)}, config).Handshake()
		got, err := ReadServerName(bytes.NewReader(b))
		switch {
		case !seen && oracleErr == io.EOF && err == nil:
			t.Fatalf("a hello to %q, where crypto/tls needs more", got)
		case !seen:
		case err == errNotClientHello && hasOddRecord(b):
		case err != nil || got != want:
			t.Fatalf("%q, %v; crypto/tls sees %q", got, err, want)
		}
	})
}

// hasOddRecord reports what crypto/tls takes before or within a ClientHello
// and no client sends: a warning, or a version that was never assigned.
func hasOddRecord(b []byte) bool {
	for len(b) >= recordHeaderLen {
		if b[0] != recordHandshake || b[1] != recordMajorVersion || b[2] > recordMaxMinorVersion {
			return true
		}
		b = b[min(len(b), recordHeaderLen+int(b[3])<<8+int(b[4])):]
	}
	return false
}

// mute is a connection that drops what is written to it.
type mute struct {
	net.Conn
	io.Reader
}

func (c *mute) Read(p []byte) (int, error)     { return c.Reader.Read(p) }
func (*mute) Write(p []byte) (int, error)      { return len(p), nil }
func (*mute) Close() error                     { return nil }
func (*mute) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkReadServerName parses a hello of common length.
func BenchmarkReadServerName(b *testing.B) {
	hello := clientHelloBytes(b, &tls.Config{ServerName: "example.org", NextProtos: []string{"h2", "http/1.1"}})
	b.ReportAllocs()
	for b.Loop() {
		_, _ = ReadServerName(bytes.NewReader(hello))
	}
}
