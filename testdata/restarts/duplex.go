package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// duplexTime is how long the duplex streams go on moving behind the start of the drain:
// longer than the spread, and less than its timeout.
const duplexTime = delayMany + spreadMany + 2*time.Second

// duplexBeat is the time between two messages of a duplex stream.
const duplexBeat = 100 * time.Millisecond

// connectDuplex makes a link of net/http's client whose streams are requests to an HTTP
// handler, with messages in both directions, as those of Connect are.
func connectDuplex(d *dialer) (protocol, error) {
	tr := &http.Transport{DialContext: d.dial, MaxConnsPerHost: 1, Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	return protocol{
		open: func(ctx context.Context) (stream, error) {
			ctx, cancel := context.WithCancel(ctx)
			r, w := io.Pipe()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://muxserve.test/duplex", r)
			if err != nil {
				cancel()
				return nil, err
			}
			resp, err := tr.RoundTrip(req)
			if err == nil && resp.StatusCode != http.StatusOK {
				err = fmt.Errorf("status %d", resp.StatusCode)
			}
			if err != nil {
				cancel()
				return nil, err
			}
			return &duplexStream{stop: cancel, body: w, answer: resp.Body}, nil
		},
		close: tr.CloseIdleConnections,
	}, nil
}

// duplexStream has messages of eight bytes.
type duplexStream struct {
	stop   context.CancelFunc
	body   *io.PipeWriter
	answer io.ReadCloser
}

func (s *duplexStream) send(n uint64) error {
	_, err := s.body.Write(binary.BigEndian.AppendUint64(nil, n))
	return err
}

func (s *duplexStream) receive() (uint64, error) {
	var message [8]byte
	_, err := io.ReadFull(s.answer, message[:])
	return binary.BigEndian.Uint64(message[:]), err
}

func (s *duplexStream) closeSend() { _ = s.body.Close() }
func (s *duplexStream) cancel()    { s.stop() }

// movers are streams that take no notice of being told to leave, and move until they end
// by themselves. None may be lost.
type movers struct {
	links []*links
	until chan struct{} // closed when they are to end
	ended chan error
	n     int
}

// newMovers opens n streams, half of them calls of grpc-go and half of them requests.
func newMovers(ctx context.Context, n int, address func() string) (*movers, error) {
	m := &movers{until: make(chan struct{}), ended: make(chan error, n), n: n}
	var wg sync.WaitGroup
	opened := make(chan error, n)
	for i := 0; i < n; i += streamsPerConnection {
		kind, connect := "grpc", connectGRPC
		if i/streamsPerConnection%2 == 1 {
			kind, connect = "duplex", connectDuplex
		}
		l := &links{t: &tally{kind: kind}, address: address, connect: connect}
		m.links = append(m.links, l)
		for range min(streamsPerConnection, n-i) {
			wg.Go(func() {
				s, err := l.open(ctx)
				if err == nil {
					err = exchange(s, 1)
				}
				if opened <- err; err == nil {
					go func() { m.ended <- m.move(s) }()
				}
			})
		}
	}
	wg.Wait()
	for range n {
		if err := <-opened; err != nil {
			m.close()
			return nil, fmt.Errorf("a duplex stream: %w", err)
		}
	}
	return m, nil
}

// move exchanges messages, and then ends the stream.
func (m *movers) move(s session) error {
	defer s.close()
	beat := time.NewTicker(duplexBeat)
	defer beat.Stop()
	for n := uint64(2); ; n++ {
		select {
		case <-beat.C:
			if err := exchange(s, n); err != nil {
				return fmt.Errorf("message %d: %w", n, err)
			}
		case <-m.until:
			s.leave()
			if _, err := s.receive(); !errors.Is(err, io.EOF) {
				return fmt.Errorf("the end: %w", err)
			}
			return nil
		}
	}
}

// end has the streams end, and returns what was wrong with them.
func (m *movers) end(out io.Writer) error {
	close(m.until)
	var faults []error
	for range m.n {
		if err := <-m.ended; err != nil {
			faults = append(faults, err)
		}
	}
	m.close()
	fmt.Fprintf(out, "%d duplex streams moved on for %v behind the start of the drain; %d were lost\n", m.n, duplexTime, len(faults))
	if len(faults) > 0 {
		return fmt.Errorf("%d duplex streams were lost, such as: %w", len(faults), faults[0])
	}
	return nil
}

func (m *movers) close() {
	for _, l := range m.links {
		l.close()
	}
}
