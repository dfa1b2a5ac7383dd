package main

import (
	"bytes"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A documented client could not be run here: its opening is put together from
// the settings that its source code sends.
type documented struct {
	name, userAgent string
	settings        []http2.Setting
	windowUpdate    uint32 // Of the connection; 0 for none.
	// waits is set where the client waits for the server's SETTINGS before its first request.
	waits bool
}

// allowTrueBinaryMetadata is C-core's own setting.
const allowTrueBinaryMetadata http2.SettingID = 0xfe03

const defaultWindow = 65535 // RFC 9113, section 6.9.2

func documentedClients() []documented {
	hyper := []http2.Setting{
		{ID: http2.SettingEnablePush, Val: 0},
		{ID: http2.SettingInitialWindowSize, Val: 2 << 20},
		{ID: http2.SettingMaxFrameSize, Val: 16 << 10},
		{ID: http2.SettingMaxHeaderListSize, Val: 16 << 10},
	}
	dotnet := []http2.Setting{
		{ID: http2.SettingEnablePush, Val: 0},
		{ID: http2.SettingInitialWindowSize, Val: defaultWindow},
	}
	envoy := func(streams, window uint32) []http2.Setting {
		return []http2.Setting{
			{ID: http2.SettingEnablePush, Val: 0},
			{ID: http2.SettingHeaderTableSize, Val: 4096},
			{ID: http2.SettingEnableConnectProtocol, Val: 0},
			{ID: http2.SettingMaxConcurrentStreams, Val: streams},
			{ID: http2.SettingInitialWindowSize, Val: window},
		}
	}
	const hyperUpdate, dotnetUpdate = 5<<20 - defaultWindow, 64<<20 - defaultWindow
	const grpcGo = "grpc-go/1.85.0"
	return []documented{
		{name: "documented-tonic", userAgent: "tonic/0.14.2", settings: hyper, windowUpdate: hyperUpdate},
		{name: "documented-hyper-grpc-go", userAgent: grpcGo, settings: hyper, windowUpdate: hyperUpdate},
		{
			name: "documented-grpc-dotnet", userAgent: "grpc-dotnet/2.71.0 (.NET 9.0.6; CLR 9.0.6; net9.0; linux; x64)",
			settings: dotnet, windowUpdate: dotnetUpdate,
		},
		{name: "documented-yarp-grpc-go", userAgent: grpcGo, settings: dotnet, windowUpdate: dotnetUpdate},
		{
			name: "documented-grpc-okhttp", userAgent: "grpc-java-okhttp/1.83.0",
			settings: []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: defaultWindow}},
		},
		{
			name: "documented-grpc-core", userAgent: "grpc-python/1.78.0 grpc-c/52.0.0 (linux; chttp2)",
			settings: []http2.Setting{
				{ID: http2.SettingEnablePush, Val: 0},
				{ID: http2.SettingMaxConcurrentStreams, Val: 0},
				{ID: http2.SettingInitialWindowSize, Val: defaultWindow},
				{ID: http2.SettingMaxHeaderListSize, Val: 16 << 10},
				{ID: allowTrueBinaryMetadata, Val: 1},
			},
			waits: true,
		},
		{
			name: "documented-envoy-grpc-go", userAgent: grpcGo,
			settings: envoy(1<<31-1, 256<<20), windowUpdate: 256<<20 - defaultWindow,
		},
		{
			name: "documented-envoy-safe-grpc-go", userAgent: grpcGo,
			settings: envoy(1024, 16<<20), windowUpdate: 24<<20 - defaultWindow,
		},
	}
}

// opening returns what the client sends until the end of the header block of a call.
func (d documented) opening() []byte {
	var out, block bytes.Buffer
	out.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&out, nil)
	_ = framer.WriteSettings(d.settings...)
	if d.windowUpdate > 0 {
		_ = framer.WriteWindowUpdate(0, d.windowUpdate)
	}
	if d.waits {
		_ = framer.WriteSettingsAck()
	}
	encoder := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "127.0.0.1:8080"},
		{Name: ":path", Value: "/grpc.health.v1.Health/Check"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "user-agent", Value: d.userAgent},
		{Name: "te", Value: "trailers"},
	} {
		_ = encoder.WriteField(f)
	}
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	return out.Bytes()
}
