package sniff

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols"
	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// readOpening returns what a client sends up to the end of its first header block.
func readOpening(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "openings", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// TestOpenings: the native server gets what the gRPC libraries open that wait for the
// server's SETTINGS, and nothing that a proxy or another transport opens, whatever the user
// agent of its first request.
func TestOpenings(t *testing.T) {
	native := []string{
		"grpc-go", "grpc-go-header-list", "grpc-go-user-agent", "grpc-go-windows", "grpcurl",
		"grpc-js", "grpc-core", "documented-grpc-core", "grpc-java",
	}
	isNative := make(map[string]bool)
	for _, name := range native {
		isNative[name] = true
	}
	files, err := filepath.Glob(filepath.Join("testdata", "openings", "*.hex"))
	if err != nil || len(files) < len(native)+len("proxies") {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".hex")
		t.Run(name, func(t *testing.T) {
			want := protocols.HTTP2
			if isNative[name] {
				want = protocols.GRPC
			}
			answer, v := classify(readOpening(t, name), protocols.TransportAuto)
			if answer != matched || v.Protocol != want || !v.BeginsRequest() {
				t.Errorf("%v %+v, want %s", answer, v, want)
			}
			delete(isNative, name)
		})
	}
	if len(isNative) > 0 {
		t.Errorf("no file for %v", isNative)
	}
}

// TestOpeningsCrossed: neither the user agent nor the SETTINGS of a library are enough.
func TestOpeningsCrossed(t *testing.T) {
	tests := []struct {
		agent    string
		settings []http2.Setting
		acked    bool
		want     bool
	}{
		{"grpc-go/1.85.0", nil, true, true},
		{"grpc-go/1.85.0", nil, false, false},
		{"shop/2.1 grpc-go/1.85.0", nil, true, true},
		{"grpc-go-connect/1.21.1 (go1.26.8)", nil, true, false},
		{"my-grpc-go/1", nil, true, false},
		{"grpc-go", []http2.Setting{{ID: http2.SettingEnablePush}}, true, false},
		{"grpc-go", []http2.Setting{{ID: http2.SettingHeaderTableSize}}, true, false},
		{"grpc-python/1.51.1 grpc-c/29.0.0 (linux; chttp2)", []http2.Setting{{ID: 0xfe03, Val: 1}}, true, true},
		{"grpc-python/1.51.1 grpc-c/29.0.0 (linux; chttp2)", nil, true, false},
		{"grpc-java-netty/1.41.3", []http2.Setting{{ID: http2.SettingMaxConcurrentStreams}}, true, true},
		{"grpc-java-netty/1.41.3", []http2.Setting{{ID: http2.SettingMaxConcurrentStreams, Val: 100}}, true, false},
		{"", nil, true, false},
	}
	for _, tt := range tests {
		var payload []byte
		for _, s := range tt.settings {
			payload = append(payload, byte(s.ID>>8), byte(s.ID), byte(s.Val>>24), byte(s.Val>>16), byte(s.Val>>8), byte(s.Val))
		}
		if got := (clientOpening{payload, tt.acked}).isGRPCLibrary(tt.agent); got != tt.want {
			t.Errorf("%q with %v, acked %t: %t", tt.agent, tt.settings, tt.acked, got)
		}
	}
}

// TestCallsOfOtherServices: a first call whose service the native server does not have goes
// to the shared server, also where a gRPC library makes it.
func TestCallsOfOtherServices(t *testing.T) {
	for _, has := range []bool{true, false} {
		s := newScanner(protocols.TransportAuto, defaultMaxBytes)
		var asked string
		s.http2.watch = NewWatch(func(path string) bool { asked = path; return has }, nil, nil, nil)
		s.http2.conn = new(Conn)
		s.http2.conn.Init(addressed{remote: "10.1.2.3:4567"})
		_, v := s.scan(grpcOpening())
		if got := v.Protocol == protocols.GRPC; got != has || asked != "/echo.Echo/Unary" {
			t.Errorf("%+v, asked for %q", v, asked)
		}
	}
}

// addressed is a connection that has an address.
type addressed struct {
	net.Conn
	remote string
}

func (a addressed) RemoteAddr() net.Addr { return namedAddr(a.remote) }

type namedAddr string

func (namedAddr) Network() string  { return "tcp" }
func (a namedAddr) String() string { return string(a) }

// TestMixedClients: a client is known by its address without the port and by its SETTINGS,
// and the oldest is forgotten.
func TestMixedClients(t *testing.T) {
	var m mixedClients
	client := func(addr, settings string) mixedClient {
		var of net.Addr = namedAddr(addr)
		if tcp, err := netip.ParseAddrPort(addr); err == nil {
			of = net.TCPAddrFromAddrPort(tcp)
		}
		return newMixedClient(of, settingsHash([]byte(settings)))
	}
	first := client("10.0.0.1:1000", "a")
	m.add(first)
	for _, tt := range []struct {
		client mixedClient
		want   bool
	}{
		{client("10.0.0.1:2000", "a"), true},
		{client("10.0.0.1:1000", "b"), false},
		{client("10.0.0.2:1000", "a"), false},
		{client("[::ffff:10.0.0.1]:1000", "a"), true},
		{client("@", "a"), false},
	} {
		if got := m.take(tt.client); got != tt.want {
			t.Errorf("%v: %t", tt.client, got)
		}
	}
	for i := range maxMixedClients {
		m.add(client(fmt.Sprintf("host%d:1", i), "a"))
	}
	if known := m.take(first); known || len(m.known) != maxMixedClients || len(m.order) != maxMixedClients {
		t.Errorf("the oldest is known: %t; %d known, %d in order", known, len(m.known), len(m.order))
	}
}

// TestALPNBinds: what the TLS handshake agreed on is what may be spoken.
func TestALPNBinds(t *testing.T) {
	http2Opening := string(wiretest.ClientBytes(func(fr *http2.Framer) { _ = fr.WriteSettings() }))
	for _, tt := range []struct {
		alpn, prefix string
		answer       answer
	}{
		{"h2", "GET / HTTP/1.1\r\n", unmatched},
		{"h2", "PRX", unmatched},
		{"h2", "PRI", needMore},
		{"h2", http2Opening, needMore},
		{"http/1.1", "GET / HTTP/1.1\r\n", matched},
		{"http/1.1", http2Opening[:len(http2.ClientPreface)], unmatched},
		{"", "GET / HTTP/1.1\r\n", matched},
		{"", http2Opening, needMore},
	} {
		s := newScanner(protocols.TransportAuto, defaultMaxBytes)
		s.alpn = tt.alpn
		if answer, v := s.scan([]byte(tt.prefix)); answer != tt.answer {
			t.Errorf("ALPN %q, %q: %v, %+v", tt.alpn, tt.prefix, answer, v)
		}
	}
}

// TestMixedClientsAreForgotten: a client that was refused is known for a time, and for some
// of the connections that come from its address.
func TestMixedClientsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m mixedClients
		client := mixedClient{name: "client"}
		taken := func() (n int) {
			for m.take(client) {
				n++
			}
			return n
		}
		m.add(client)
		m.add(client)
		if n := taken(); n != 2*mixedCount {
			t.Errorf("%d connections behind two refusals", n)
		}
		m.add(client)
		time.Sleep(mixedTime - time.Second)
		m.add(client)
		time.Sleep(mixedTime - time.Second)
		if !m.take(client) {
			t.Error("forgotten within the time")
		}
		time.Sleep(time.Second)
		if m.take(client) {
			t.Error("known behind the time")
		}
		m.add(client)
		if n := taken(); n != mixedCount {
			t.Errorf("%d connections behind a refusal and another time", n)
		}
	})
}
