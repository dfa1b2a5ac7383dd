package settings

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/humanlog"
	"github.com/muxserve/muxserve/listeners"
	"github.com/muxserve/muxserve/protocols"
)

// loadFrom loads settings from a command line and an environment.
func loadFrom(t *testing.T, args []string, env map[string]string) (*Settings, error) {
	t.Helper()
	parsed, err := cli.Parse(Flags(), args)
	if err != nil {
		t.Fatal(err)
	}
	return Load(parsed, func(name string) string { return env[name] })
}

func TestLoadPrecedence(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		args   []string
		env    map[string]string
		key    string
		want   string
		source string
	}{
		{"default", nil, nil, "listeners[0].address", "127.0.0.1:8080", "default"},
		{"environment", nil, map[string]string{"MUXSERVE_LISTEN": "127.0.0.1:1"}, "listeners[0].address", "127.0.0.1:1", "environment MUXSERVE_LISTEN"},
		{"flag", []string{"--listen", "127.0.0.1:2"}, map[string]string{"MUXSERVE_LISTEN": "127.0.0.1:1"}, "listeners[0].address", "127.0.0.1:2", "flag --listen"},
		{"empty variable", nil, map[string]string{"MUXSERVE_ADMIN": ""}, "admin.address", defaultAdmin, "default"},
		{"last flag", []string{"--admin", "off", "--admin=[::1]:3"}, nil, "admin.address", quote("[::1]:3"), "flag --admin"},
		{"PORT", nil, map[string]string{"PORT": "9000", "APP_PORT": "9001"}, "listeners[0].address", quote(":9000"), "environment PORT"},
		{"APP_PORT", nil, map[string]string{"APP_PORT": "9001"}, "listeners[0].address", quote(":9001"), "environment APP_PORT"},
		{"APP_PORT of a Service", nil, map[string]string{"APP_PORT": "tcp://10.0.0.1:80"}, "listeners[0].address", "127.0.0.1:8080", "default"},
		{"IP", nil, map[string]string{"IP": "0.0.0.0"}, "listeners[0].address", "0.0.0.0:8080", "environment IP"},
		{"IP and PORT", nil, map[string]string{"IP": "::", "PORT": "80"}, "listeners[0].address", quote("[::]:80"), "environment IP and PORT"},
		{"a port that does not matter", nil, map[string]string{"MUXSERVE_LISTEN": "127.0.0.1:1", "PORT": "http"}, "listeners[0].address", "127.0.0.1:1", "environment MUXSERVE_LISTEN"},
		{"a variable that does not matter", []string{"--tls", "off"}, map[string]string{"MUXSERVE_TLS": "maybe"}, "listeners[0].tls.mode", "off", "flag --tls"},
		{"delay", []string{"--drain-delay=0"}, nil, "drain.delay", "0s", "flag --drain-delay"},
		{"protocols", nil, nil, "listeners[0].protocols", "[http1, http2, grpc, websocket]", "default"},
		{"some protocols", []string{"--protocols", "http2, grpc"}, nil, "listeners[0].protocols", "[http2, grpc]", "flag --protocols"},
		{"proxy", nil, nil, "listeners[0].proxy_protocol.mode", "off", "default"},
		{"level", nil, map[string]string{"MUXSERVE_LOG_LEVEL": "WARN"}, "log.level", "warn", "environment MUXSERVE_LOG_LEVEL"},
		{"auto where a certificate is given", []string{"--tls-cert=c.pem", "--tls-key=k.pem"}, nil, "listeners[0].tls.mode", "auto", "default"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := loadFrom(t, tt.args, tt.env)
			if err != nil {
				t.Fatal(err)
			}
			got := [2]string{s.values()[tt.key], s.source(tt.key)}
			if diff := cmp.Diff([2]string{tt.want, tt.source}, got); diff != "" {
				t.Errorf("%s and its source (-want +got):\n%s", tt.key, diff)
			}
		})
	}
}

func TestLoadEverything(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	got, err := loadFrom(t, []string{
		"--listen", "127.0.0.1:1", "--listen=unix:/run/m.sock", "--admin=off",
		"--tls", "mutual", "--tls-cert", "c.pem", "--tls-key", "k.pem", "--tls-client-ca", "ca.pem",
		"--protocols", "http1,grpc", "--proxy-protocol", "required", "--proxy-trusted", "10.0.0.0/8", "--proxy-trusted=::1,unix",
		"--ws-read-limit", "-1", "--grpc-transport", "shared", "--static", dir,
		"--drain-delay", "1s", "--drain-timeout", "1m", "--drain-spread", "2s", "--admin-token", "secret",
		"--admin-protect", "all", "--admin-hosts", "a.example,b.example",
		"--log-format", "json", "--log-level", "debug", "--access-log",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	tls := listeners.TLSConfig{Mode: listeners.ModeMutual, Cert: "c.pem", Key: "k.pem", ClientCA: "ca.pem"}
	proxy := listeners.ProxyConfig{Mode: listeners.ProxyRequired, Trusted: []string{"10.0.0.0/8", "::1", "unix"}}
	names := []string{"http1", "grpc"}
	want.Mux.Listeners = []listeners.Config{
		{Address: "127.0.0.1:1", TLS: tls, ProxyProtocol: proxy, Protocols: names, TCPKeepalive: listeners.DefaultConfig().TCPKeepalive},
		{Address: "unix:/run/m.sock", TLS: tls, ProxyProtocol: proxy, Protocols: names, TCPKeepalive: listeners.DefaultConfig().TCPKeepalive},
	}
	want.Admin = Admin{Address: Off, Token: "secret", Protect: ProtectAll, Hosts: []string{"a.example", "b.example"}}
	want.Mux.WebSocket.ReadLimit = -1
	want.Mux.GRPC.Transport = protocols.TransportShared
	want.Static = dir
	want.Mux.Drain.Delay, want.Mux.Drain.Timeout, want.Mux.Drain.Spread = time.Second, time.Minute, 2*time.Second
	want.Log = Log{Level: slog.LevelDebug, Format: humanlog.JSON, Access: true}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Settings{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLoadListFromEnvironment(t *testing.T) {
	t.Parallel()
	s, err := loadFrom(t, nil, map[string]string{"MUXSERVE_LISTEN": "127.0.0.1:0, 127.0.0.1:0,unix:/a"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"127.0.0.1:0", "127.0.0.1:0", "unix:/a", defaultAdmin}
	var got []string
	for _, l := range s.Mux.Listeners {
		got = append(got, l.Address)
	}
	got = append(got, s.Admin.Address)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLoadFaults(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	tests := []struct {
		name string
		args []string
		env  map[string]string
		want []string // one for each line of the error
	}{
		{"address without a port", []string{"--listen", "8080"}, nil, []string{`--listen: "8080" is not HOST:PORT, such as 127.0.0.1:8080 or :8080, nor unix:PATH`}},
		{"port too large", []string{"--listen", ":65536"}, nil, []string{`--listen: ":65536" is not HOST:PORT`}},
		{"port by name", nil, map[string]string{"MUXSERVE_LISTEN": ":http"}, []string{`MUXSERVE_LISTEN: ":http" is not HOST:PORT`}},
		{"URL", []string{"--listen", "http://localhost:80"}, nil, []string{`--listen: "http://localhost:80" is not HOST:PORT`}},
		{"unix without a path", []string{"--listen", "unix:"}, nil, []string{`--listen: "unix:" is not HOST:PORT`}},
		{"empty address", []string{"--listen="}, nil, []string{`--listen: "" is not HOST:PORT`}},
		{"admin", []string{"--admin", "on"}, nil, []string{`--admin: "on" is not HOST:PORT, such as 127.0.0.1:8080 or :8080, nor unix:PATH, nor off`}},
		{"PORT", nil, map[string]string{"PORT": "http"}, []string{`PORT: "http" is not a port from 0 to 65535`}},
		{"APP_PORT", nil, map[string]string{"APP_PORT": "-1"}, []string{`APP_PORT: "-1" is not a port from 0 to 65535`}},
		{"IP", nil, map[string]string{"IP": "my host"}, []string{`IP: "my host" is not an IP address such as 0.0.0.0 or ::1`}},
		{"one address twice", []string{"--listen", "127.0.0.1:8081"}, nil, []string{"admin.address: 127.0.0.1:8081 is that of listeners[0].address already (--admin or MUXSERVE_ADMIN)"}},
		{"TLS mode", []string{"--tls", "on"}, nil, []string{`--tls: "on" is not one of off, self-signed, auto, manual, mutual`}},
		{"certificate without a key", []string{"--tls-cert", "c.pem", "--listen=:1", "--listen=:2"}, nil, []string{"tls.key: needed in mode auto (--tls-key or MUXSERVE_TLS_KEY)"}},
		{"key without a certificate", nil, map[string]string{"MUXSERVE_TLS_KEY": "k.pem"}, []string{"(--tls-key or MUXSERVE_TLS_KEY)"}},
		{"mutual without a client CA", []string{"--tls=mutual", "--tls-cert=c", "--tls-key=k"}, nil, []string{"(--tls-client-ca or MUXSERVE_TLS_CLIENT_CA)"}},
		{"client CA that would be ignored", []string{"--tls-cert=c", "--tls-key=k", "--tls-client-ca=a"}, nil, []string{"(--tls-client-ca or MUXSERVE_TLS_CLIENT_CA)"}},
		{"certificate for self-signed", []string{"--tls=self-signed", "--tls-cert=c"}, nil, []string{"(--tls-cert or MUXSERVE_TLS_CERT)"}},
		{"read limit", []string{"--ws-read-limit", "32KiB"}, nil, []string{`--ws-read-limit: "32KiB" is not a number of bytes such as 32768, nor -1`}},
		{"read limit of nothing", []string{"--ws-read-limit", "0"}, nil, []string{`--ws-read-limit: "0" is not`}},
		{"transport", []string{"--grpc-transport", "both"}, nil, []string{`--grpc-transport: "both" is not one of auto, native, shared`}},
		{"static", []string{"--static", missing}, nil, []string{"--static: not a directory that can be read: open " + missing}},
		{"duration", nil, map[string]string{"MUXSERVE_DRAIN_DELAY": "5"}, []string{`MUXSERVE_DRAIN_DELAY: "5" is not a length of time such as 500ms, 30s or 1m30s`}},
		{"negative duration", []string{"--drain-timeout=-1s"}, nil, []string{`--drain-timeout: "-1s" is not a length of time`}},
		{"too long", []string{"--drain-timeout=10000h"}, nil, []string{"(--drain-timeout or MUXSERVE_DRAIN_TIMEOUT)"}},
		{"log format", []string{"--log-format", "xml"}, nil, []string{`--log-format: "xml" is not one of auto, text, json`}},
		{"log level", []string{"--log-level", "loud"}, nil, []string{`--log-level: "loud" is not one of debug, info, warn, error`}},
		{"protocol", []string{"--protocols", "http1,http3"}, nil, []string{`unknown "http3"; want some of http1, http2, grpc, websocket (--protocols or MUXSERVE_PROTOCOLS)`}},
		{"no protocol", []string{"--protocols", ","}, nil, []string{"--protocols: empty; leave it out to serve all protocols"}},
		{"proxy mode", []string{"--proxy-protocol", "on"}, nil, []string{`--proxy-protocol: "on" is not one of off, optional, required`}},
		{"proxies that nobody trusts", []string{"--proxy-protocol=required"}, nil, []string{"(--proxy-trusted or MUXSERVE_PROXY_TRUSTED)"}},
		{"proxies in vain", nil, map[string]string{"MUXSERVE_PROXY_TRUSTED": "::1"}, []string{"(--proxy-trusted or MUXSERVE_PROXY_TRUSTED)"}},
		{"trusted network", []string{"--proxy-protocol=optional", "--proxy-trusted=10.0.0.0/33"}, nil, []string{`"10.0.0.0/33" is not a network such as 10.0.0.0/8, an address such as 10.0.0.1, or unix (--proxy-trusted`}},
		{"configuration that is not there", []string{"--config", missing, "--log-level=loud"}, nil, []string{"--config: stat " + missing, `--log-level: "loud"`}},
		{"several at once", []string{"--tls", "on", "--log-level", "loud"}, nil, []string{`--tls: "on"`, `--log-level: "loud"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, err := loadFrom(t, tt.args, tt.env)
			if err == nil {
				t.Fatalf("no error, but %+v", s)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("%d faults, want %d:\n%v", len(lines), len(tt.want), err)
			}
			for i, want := range tt.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("fault %q does not contain %q", lines[i], want)
				}
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	s, err := loadFrom(t, []string{"--drain-timeout", "5s"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Warnings()) != 1 {
		t.Errorf("warnings %q, want one", s.Warnings())
	}
	if w := Default().Warnings(); len(w) != 0 {
		t.Errorf("the defaults warn: %q", w)
	}
}
