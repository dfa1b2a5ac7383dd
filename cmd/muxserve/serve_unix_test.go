//go:build unix

package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"

	"golang.org/x/net/http2"
)

// TestExtendedConnect: the server offers WebSockets over HTTP/2 if and only if the flag
// is given, for any environment.
func TestExtendedConnect(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, godebug string
		args          []string
		want          bool
	}{
		{name: "off"},
		{name: "off, and on in the environment", godebug: "gctrace=0,http2xconnect=1"},
		{name: "on", args: []string{"--http2-websocket"}, want: true},
		{name: "on in both", godebug: "http2xconnect=1", args: []string{"--http2-websocket"}, want: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := startWith(t, []string{"GODEBUG=" + test.godebug},
				append([]string{"--listen=127.0.0.1:0", "--admin=127.0.0.1:0"}, test.args...)...)
			conn, err := net.Dial("tcp", p.service.Host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fr := http2.NewFramer(conn, conn)
			_, _ = io.WriteString(conn, http2.ClientPreface)
			_ = fr.WriteSettings()
			f, err := fr.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			settings, ok := f.(*http2.SettingsFrame)
			if !ok {
				t.Fatalf("first frame is %v", f)
			}
			if v, got := settings.Value(http2.SettingEnableConnectProtocol); got != test.want {
				t.Errorf("ENABLE_CONNECT_PROTOCOL: %v, %d", got, v)
			}
		})
	}
}

// TestUpgradeH2C: with the flag, a client can upgrade an HTTP/1.1 connection to HTTP/2.
func TestUpgradeH2C(t *testing.T) {
	t.Parallel()
	for flag, want := range map[string]int{
		"--http2-upgrade-h2c":       http.StatusSwitchingProtocols,
		"--http2-upgrade-h2c=false": http.StatusOK,
	} {
		p := start(t, flag)
		conn, err := net.Dial("tcp", p.service.Host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings:\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != want {
			t.Errorf("%s: %s", flag, resp.Status)
		}
	}
}
