package protocols

import (
	"bytes"
	"errors"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
)

// values parses a SETTINGS frame.
func values(t *testing.T, frame []byte) map[http2.SettingID]uint32 {
	t.Helper()
	f, err := http2.NewFramer(nil, bytes.NewReader(frame)).ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[http2.SettingID]uint32)
	_ = f.(*http2.SettingsFrame).ForeachSetting(func(s http2.Setting) error {
		got[s.ID] = s.Val
		return nil
	})
	return got
}

// TestCommonSettings: a client is told the least that both servers allow, and no server's
// own SETTINGS allow less.
func TestCommonSettings(t *testing.T) {
	const (
		table   = http2.SettingHeaderTableSize
		streams = http2.SettingMaxConcurrentStreams
		window  = http2.SettingInitialWindowSize
		frame   = http2.SettingMaxFrameSize
		list    = http2.SettingMaxHeaderListSize
	)
	defaults := map[http2.SettingID]uint32{streams: 250, list: 64 << 10}
	for _, test := range []struct {
		name    string
		edit    func(*HTTP2Config, *GRPCConfig)
		options []grpc.ServerOption
		want    map[http2.SettingID]uint32 // Beside the defaults.
	}{
		{"defaults", func(*HTTP2Config, *GRPCConfig) {}, nil, nil},
		{"net/http allows more streams", func(h *HTTP2Config, g *GRPCConfig) { h.MaxStreams, g.MaxStreams = 9, 7 }, nil, map[http2.SettingID]uint32{streams: 7}},
		{"grpc-go allows more streams", func(h *HTTP2Config, g *GRPCConfig) { h.MaxStreams, g.MaxStreams = 7, 9 }, nil, map[http2.SettingID]uint32{streams: 7}},
		{"a larger window of net/http", func(h *HTTP2Config, _ *GRPCConfig) { h.StreamWindow = 1 << 22 }, nil, nil},
		{"a larger window of grpc-go", func(_ *HTTP2Config, g *GRPCConfig) { g.StreamWindow = 1 << 18 }, nil, map[http2.SettingID]uint32{window: 1 << 18}},
		{"larger frames", func(h *HTTP2Config, _ *GRPCConfig) { h.MaxFrameBytes = 1 << 20 }, nil, nil},
		{"options of grpc-go", func(*HTTP2Config, *GRPCConfig) {},
			[]grpc.ServerOption{grpc.MaxConcurrentStreams(2), grpc.MaxHeaderListSize(1 << 10), grpc.HeaderTableSize(0), grpc.InitialWindowSize(1 << 17)},
			map[http2.SettingID]uint32{streams: 2, list: 1 << 10, table: 0, window: 1 << 17}},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, g := DefaultHTTP2Config(), DefaultGRPCConfig()
			test.edit(&h, &g)
			s := newServers(t, g, h, test.options...)
			defer s.Stop()
			told, saysNative, err := CommonSettings(h, s)
			if err != nil {
				t.Fatal(err)
			}
			want := maps.Clone(defaults)
			maps.Copy(want, test.want)
			got := values(t, told)
			delete(got, settingEnableConnectProtocol)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("SETTINGS (-want +got):\n%s", diff)
			}
			if v := got[frame]; v != 0 {
				t.Errorf("frames of %d bytes", v)
			}
			l := listenAnywhere(t)
			go s.Native.Serve(l)
			for name, addr := range map[string]string{"net/http": serveHTTP2(t, h, nil), "grpc-go": l.Addr().String()} {
				server := newFrameClient(t, addr).announced()
				for id, v := range got {
					if own, ok := server[id]; ok && own < v {
						t.Errorf("%s: %v is %d behind %d", name, id, own, v)
					}
				}
				if name == "net/http" {
					continue
				}
				both := maps.Clone(limits)
				maps.Copy(both, got)
				before := maps.Clone(both)
				maps.Copy(both, server)
				if same := maps.Equal(before, both); saysNative != same {
					t.Errorf("it says all of %s's own is %v, want %v", name, saysNative, same)
				}
			}
		})
	}
}

// TestCommonSettingsOfferWebSockets: what net/http announces beside limits is told at once,
// and where WebSockets are asked for it is offered, or nothing is served.
func TestCommonSettingsOfferWebSockets(t *testing.T) {
	c := DefaultHTTP2Config()
	s := newServers(t, DefaultGRPCConfig(), c)
	defer s.Stop()
	frame, _, err := CommonSettings(c, s)
	if err != nil {
		t.Fatal(err)
	}
	own := newFrameClient(t, serveHTTP2(t, c, nil)).announced()
	got := values(t, frame)
	if got[settingEnableConnectProtocol] != own[settingEnableConnectProtocol] {
		t.Errorf("extended CONNECT: %d, want net/http's %d", got[settingEnableConnectProtocol], own[settingEnableConnectProtocol])
	}
	c.WebSocket = true
	offered := own[settingEnableConnectProtocol] == 1
	if _, _, err := CommonSettings(c, s); errors.Is(err, ErrNoExtendedConnect) == offered {
		t.Errorf("offered is %v, error %v", offered, err)
	}
}
