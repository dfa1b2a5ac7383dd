package protocols

import (
	"crypto/tls"
	"encoding/binary"
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

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
	for payload := record[tlsRecordHeaderLen:]; len(payload) > 0; {
		n := min(n, len(payload))
		out = append(out, record[:3]...)
		out = binary.BigEndian.AppendUint16(out, uint16(n))
		out = append(out, payload[:n]...)
		payload = payload[n:]
	}
	return out
}

func TestParseClientHello(t *testing.T) {
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
		b = append([]byte(nil), b...)
		b[2] = minor
		return b
	}
	both := ClientHello{ServerName: "example.org", ALPN: []string{"h2", "http/1.1"}}
	tests := []struct {
		name   string
		prefix []byte
		answer Answer
		want   ClientHello
	}{
		{"nothing", nil, NeedMore, ClientHello{}},
		{"SNI and ALPN", full, Match, both},
		{"neither", bare, Match, ClientHello{}},
		{"post-quantum", quantum, Match, ClientHello{ServerName: "example.org"}},
		{"one byte a record", splitRecords(full, 1), Match, both},
		{"post-quantum in fragments", splitRecords(quantum, 500), Match, ClientHello{ServerName: "example.org"}},
		{"record version 03 02", version(full, 2), Match, both},
		{"record version 03 03", version(full, 3), Match, both},
		{"record version 03 05", version(full, 5), NoMatch, ClientHello{}},
		{"bytes behind it", append(slices.Clip(full), 0x17, 3, 3), Match, both},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), NoMatch, ClientHello{}},
		{"another message", []byte{0x16, 3, 1, 0, 4, 2, 0, 0, 0}, NoMatch, ClientHello{}},
		{"another message, cut", []byte{0x16, 3, 1, 0, 4, 2}, NoMatch, ClientHello{}},
		{"empty record", []byte{0x16, 3, 1, 0, 0}, NoMatch, ClientHello{}},
		{"record too long", []byte{0x16, 3, 1, 0x40, 1}, NoMatch, ClientHello{}},
		{"hello too long", []byte{0x16, 3, 1, 0, 4, 1, 1, 0, 1}, NoMatch, ClientHello{}},
		{"hello of nothing", []byte{0x16, 3, 1, 0, 4, 1, 0, 0, 0}, NoMatch, ClientHello{}},
		{"alert between the records", append(splitRecords(full[:20], 4), 0x15, 3, 1, 0, 2), NoMatch, ClientHello{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			answer, got := ParseClientHello(tt.prefix)
			if answer != tt.answer {
				t.Errorf("answer = %v, want %v", answer, tt.answer)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("hello (-want +got):\n%s", diff)
			}
		})
	}
	for i := range full {
		if answer, _ := ParseClientHello(full[:i]); answer != NeedMore {
			t.Errorf("%d of %d bytes: %v, want %v", i, len(full), answer, NeedMore)
		}
	}
}
