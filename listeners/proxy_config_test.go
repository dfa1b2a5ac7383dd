package listeners

import (
	"net"
	"testing"
)

func TestProxyConfigValidate(t *testing.T) {
	tests := []struct {
		name   string
		config ProxyConfig
		want   []string // parts of the error; none means valid
	}{
		{name: "zero"},
		{name: "off", config: ProxyConfig{Mode: ProxyOff, Trusted: []string{"10.0.0.0/8"}}},
		{name: "required", config: ProxyConfig{Mode: ProxyRequired, Trusted: []string{"10.0.0.0/8", "::1", "fd00::/8", "unix"}}},
		{name: "nobody", config: ProxyConfig{Mode: ProxyOptional}, want: []string{"proxy_protocol.trusted: needed in mode optional"}},
		{name: "in vain", config: ProxyConfig{Trusted: []string{"::1"}}, want: []string{"proxy_protocol.trusted: has no effect without mode"}},
		{
			name:   "several",
			config: ProxyConfig{Mode: "on", Trusted: []string{"10.0.0.0/33", "localhost", "", "fe80::1%eth0"}},
			want: []string{
				`listeners: proxy_protocol.mode: unknown "on"`,
				`listeners: proxy_protocol.trusted: "10.0.0.0/33" is not a network`,
				`trusted: "localhost" is not`, `trusted: "" is not`, `trusted: "fe80::1%eth0" is not`,
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { checkError(t, Config{Address: ":0", ProxyProtocol: tt.config}.Validate(), tt.want) })
	}
}

func TestTrust(t *testing.T) {
	tcp := func(address string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(address), Port: 1} }
	tests := []struct {
		trusted string
		peer    net.Addr
		want    bool
	}{
		{"10.0.0.0/8", tcp("10.1.2.3"), true},
		{"10.0.0.0/8", tcp("11.1.2.3"), false},
		{"10.0.0.0/8", tcp("::ffff:10.1.2.3"), true},
		{"::ffff:10.0.0.0/104", tcp("10.1.2.3"), true},
		{"10.1.2.3", tcp("10.1.2.3"), true},
		{"10.1.2.3", tcp("10.1.2.4"), false},
		{"0.0.0.0/0", tcp("::1"), false},
		{"fe80::/10", &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, true},
		{"unix", &net.UnixAddr{Net: "unix"}, true},
		{"unix", tcp("::1"), false},
		{"0.0.0.0/0", &net.UnixAddr{Net: "unix"}, false},
		{"0.0.0.0/0", &net.UDPAddr{IP: net.IPv4(1, 2, 3, 4)}, false},
	}
	for _, tt := range tests {
		var f faults
		trusted := parseTrusted([]string{tt.trusted}, &f)
		if len(f) > 0 {
			t.Fatal(f)
		}
		if got := trusted.holds(tt.peer); got != tt.want {
			t.Errorf("trust in %s holds %v: %t, want %t", tt.trusted, tt.peer, got, tt.want)
		}
	}
}
