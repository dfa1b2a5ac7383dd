package protocols

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"time"

	"golang.org/x/net/http2"
)

// CheckSettings reports whether the native server keeps what clients are told by
// the frame settings, which comes from [ServerSettings]. It does unless options
// that were given to [NewGRPCServers] say otherwise; then each fault names the option's
// setting, and the key of the configuration that sets it for every server.
func (s *GRPCServers) CheckSettings(settings []byte) error {
	told, err := parseSettings(settings)
	if err != nil {
		return err
	}
	frame, err := s.nativeSettings()
	if err != nil {
		return fmt.Errorf("protocols: settings of the gRPC server: %w", err)
	}
	own, err := parseSettings(frame)
	if err != nil {
		return err
	}
	var faults []error
	for _, rule := range []struct {
		id       http2.SettingID
		standard uint32 // what holds where the setting is not sent (RFC 9113 section 6.5.2)
		exact    bool
		key      string
	}{
		// grpc-go grants more only when its own window, which is not what the client
		// counts by, is used up.
		{http2.SettingInitialWindowSize, defaultStreamWindow, true, "http2.stream_window"},
		{http2.SettingMaxConcurrentStreams, math.MaxUint32, false, "http2.max_streams"},
		{http2.SettingMaxHeaderListSize, math.MaxUint32, false, "http2.max_header_list_bytes"},
		{http2.SettingHeaderTableSize, 4096, false, "the server's default"},
	} {
		value := func(m map[http2.SettingID]uint32) uint32 {
			if v, ok := m[rule.id]; ok {
				return v
			}
			return rule.standard
		}
		if is, want := value(own), value(told); is < want || rule.exact && is != want {
			faults = append(faults, fmt.Errorf("protocols: a gRPC option sets %v to %d, but clients are told %d: set %s instead", rule.id, is, want, rule.key))
		}
	}
	return errors.Join(faults...)
}

// nativeSettings asks the native server over a pipe for its first frame.
func (s *GRPCServers) nativeSettings() ([]byte, error) {
	client, server := net.Pipe()
	l := &onceListener{conn: server, done: make(chan struct{})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := s.Native.Serve(l); err != nil {
			slog.Default().Debug("gRPC server left its pipe", "err", err)
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
	return firstFrame(client)
}

func parseSettings(frame []byte) (map[http2.SettingID]uint32, error) {
	f, err := http2.NewFramer(nil, bytes.NewReader(frame)).ReadFrame()
	if err != nil {
		return nil, fmt.Errorf("protocols: SETTINGS: %w", err)
	}
	sf, ok := f.(*http2.SettingsFrame)
	if !ok {
		return nil, fmt.Errorf("protocols: %v is not SETTINGS", f.Header())
	}
	settings := make(map[http2.SettingID]uint32)
	err = sf.ForeachSetting(func(s http2.Setting) error {
		settings[s.ID] = s.Val
		return nil
	})
	return settings, err
}
