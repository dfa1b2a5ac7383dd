package protocols

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
)

// serverOutput is what a server may write, and what is to be left of it when
// acks ACKs are taken out.
func serverOutput(acks int) (output, want []byte) {
	var all, left bytes.Buffer
	kept := http2.NewFramer(&multiWriter{&all, &left}, nil)
	removed := http2.NewFramer(&all, nil)

	_ = removed.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20})
	_ = kept.WriteWindowUpdate(0, 1<<20)
	for range acks {
		_ = removed.WriteSettingsAck()
		_ = kept.WritePing(true, [8]byte{1, 2, 3})
	}
	_ = kept.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	_ = kept.WriteSettingsAck()
	_ = kept.WriteData(1, true, bytes.Repeat([]byte("data"), 100))
	return all.Bytes(), left.Bytes()
}

type multiWriter []*bytes.Buffer

func (m *multiWriter) Write(p []byte) (int, error) {
	for _, b := range *m {
		b.Write(p)
	}
	return len(p), nil
}

func TestSettingsFilter(t *testing.T) {
	for acks := range 3 {
		output, want := serverOutput(acks)
		for step := 1; step <= len(output); step++ {
			f := newSettingsFilter(acks)
			var got bytes.Buffer
			for rest := output; len(rest) > 0; {
				n := min(step, len(rest))
				if wrote, err := f.write(&got, rest[:n]); wrote != n || err != nil {
					t.Fatalf("write = %d, %v; want %d", wrote, err, n)
				}
				rest = rest[n:]
			}
			if diff := cmp.Diff(want, got.Bytes()); diff != "" {
				t.Fatalf("%d ACKs, writes of %d bytes (-want +got):\n%s", acks, step, diff)
			}
			if !f.finished() {
				t.Errorf("%d ACKs, writes of %d bytes: the filter has not finished", acks, step)
			}
		}
	}
}

func TestSettingsFilterError(t *testing.T) {
	broken := errors.New("broken")
	_, want := serverOutput(1)
	n, err := newSettingsFilter(1).write(writerFunc(func([]byte) (int, error) { return 3, broken }), want)
	if n != 0 || !errors.Is(err, broken) {
		t.Errorf("write = %d, %v; want 0, %v", n, err, broken)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
