package protocols

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols/internal/h2"
)

// settingsTimeout bounds how long a server in this process may take to send its SETTINGS.
const settingsTimeout = 5 * time.Second

// settingEnableConnectProtocol is SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 section 3).
const settingEnableConnectProtocol http2.SettingID = 0x8

// CommonSettings returns the SETTINGS frame for a client that waits for SETTINGS before
// it is known which server gets its connection: one that [NewHTTP2Server] makes from c,
// or s.Native. The frame allows the client what both servers allow. The chosen server's
// own SETTINGS, which follow, can only allow more. saysNative reports that those of
// s.Native would change nothing, so that a client need not see them.
//
// CommonSettings asks both servers over a pipe, so that the answer is right for each
// version of net/http and grpc-go, for their debug settings, and for the options that s
// was made with. The error is [ErrNoExtendedConnect] where c asks for WebSockets and
// net/http does not offer them.
func CommonSettings(c HTTP2Config, s *GRPCServers) (frame []byte, saysNative bool, err error) {
	srv := NewHTTP2Server(c, HTTPHooks{
		Handler: http.NotFoundHandler(),
		Logger:  slog.New(slog.DiscardHandler),
	})
	shared, err := announced(srv.Serve)
	_ = srv.Close()
	if err != nil {
		return nil, false, fmt.Errorf("protocols: settings of the HTTP/2 server: %w", err)
	}
	if v, _ := shared.Value(settingEnableConnectProtocol); c.WebSocket && v != 1 {
		return nil, false, ErrNoExtendedConnect
	}
	native, err := announced(s.Native.Serve)
	if err != nil {
		return nil, false, fmt.Errorf("protocols: settings of the gRPC server: %w", err)
	}
	var buffer bytes.Buffer
	common := least(shared, native)
	err = http2.NewFramer(&buffer, nil).WriteSettings(common...)
	return buffer.Bytes(), says(common, native), err
}

// says reports whether a client that knows the settings learns nothing from the frame.
func says(settings []http2.Setting, frame *http2.SettingsFrame) bool {
	known := maps.Clone(limits)
	for _, s := range settings {
		known[s.ID] = s.Val
	}
	return frame.ForeachSetting(func(s http2.Setting) error {
		if v, ok := known[s.ID]; !ok || v != s.Val {
			return errNews
		}
		return nil
	}) == nil
}

// errNews ends the walk in says.
var errNews = errors.New("news")

// limits are the settings that bound the client, and what holds where a server does not
// send them (RFC 9113 section 6.5.2).
var limits = map[http2.SettingID]uint32{
	http2.SettingHeaderTableSize:      4096,
	http2.SettingMaxConcurrentStreams: math.MaxUint32,
	http2.SettingInitialWindowSize:    h2.DefaultWindow,
	http2.SettingMaxFrameSize:         h2.MaxFrameSize,
	http2.SettingMaxHeaderListSize:    math.MaxUint32,
}

// least returns the smaller value of each limit. What is no limit is net/http's: grpc-go
// sends nothing else, a later SETTINGS frame must not take back
// ENABLE_CONNECT_PROTOCOL (RFC 8441 section 3), and nghttp2 refuses one that changes
// NO_RFC7540_PRIORITIES (RFC 9218 section 2.1).
func least(shared, native *http2.SettingsFrame) []http2.Setting {
	var settings []http2.Setting
	_ = shared.ForeachSetting(func(s http2.Setting) error {
		if _, ok := limits[s.ID]; !ok {
			settings = append(settings, s)
		}
		return nil
	})
	for id := http2.SettingHeaderTableSize; id <= http2.SettingMaxHeaderListSize; id++ {
		standard, ok := limits[id]
		if !ok {
			continue
		}
		value := uint32(math.MaxUint32)
		for _, server := range []*http2.SettingsFrame{shared, native} {
			v, ok := server.Value(id)
			if !ok {
				v = standard
			}
			value = min(value, v)
		}
		if value != standard {
			settings = append(settings, http2.Setting{ID: id, Val: value})
		}
	}
	return settings
}

// announced returns the SETTINGS with which a server opens a connection. It gives the
// server a pipe, and waits until it has left its listener.
func announced(serve func(net.Listener) error) (*http2.SettingsFrame, error) {
	client, server := net.Pipe()
	l := &onceListener{conn: server, done: make(chan struct{})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := serve(l); err != nil {
			slog.Default().Debug("a server left its pipe", "err", err)
		}
	}()
	defer func() {
		_ = client.Close()
		_ = l.Close()
		<-served
	}()
	if err := client.SetDeadline(time.Now().Add(settingsTimeout)); err != nil {
		return nil, err
	}
	// If this fails, the read below fails. It runs aside because on a pipe a server and a
	// client that both speak first would wait for each other.
	go io.WriteString(client, http2.ClientPreface)
	frame, err := http2.NewFramer(nil, client).ReadFrame()
	if err != nil {
		return nil, err
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		return nil, fmt.Errorf("its first frame is %v", frame.Header())
	}
	return settings, nil
}

// onceListener accepts one connection, and then waits to be closed.
type onceListener struct {
	conn   net.Conn
	done   chan struct{}
	used   bool
	closed sync.Once
}

func (l *onceListener) Accept() (net.Conn, error) {
	if l.used {
		<-l.done
		return nil, net.ErrClosed
	}
	l.used = true
	return l.conn, nil
}

func (l *onceListener) Close() error {
	l.closed.Do(func() { close(l.done) })
	return nil
}

func (l *onceListener) Addr() net.Addr { return l.conn.LocalAddr() }
