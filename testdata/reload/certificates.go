package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

// inTime is how soon new handshakes must meet a new certificate.
const inTime = time.Second

// certificates changes the certificate, by the link that Kubernetes swaps and SIGHUP, while many clients shake hands.
func certificates(ctx context.Context, o *options, dir string) error {
	p, err := process.Reserve()
	if err != nil {
		return err
	}
	defer p.Release()
	if err := swapPair(dir, 0); err != nil {
		return err
	}
	pair := func(name string) string { return filepath.Join(dir, "current", name) }
	s, err := startServer(ctx, o, dir, file{
		addresses: []string{p.String()},
		tls:       fmt.Sprintf("{cert: %q, key: %q}", pair("tls.crt"), pair("tls.key")),
	})
	if err != nil {
		return err
	}
	h := startHandshakes(ctx, o.handshakes, p.String())
	var slowest time.Duration
	for serial := int64(1); serial <= int64(o.certificates) && err == nil; serial++ {
		var took time.Duration
		if took, err = renew(ctx, s, h, dir, serial); err == nil {
			slowest = max(slowest, took)
			err = wait(ctx, o.pause)
		}
	}
	err = errors.Join(err, h.finish(o))
	fmt.Fprintf(o.out, "%d certificates; a new one is met after %v at most; %d handshakes met an older one than those before\n",
		o.certificates, slowest.Round(time.Millisecond), h.stale)
	return errors.Join(err, s.stop())
}

// renew puts another certificate in place and returns how long it took until a handshake met it.
func renew(ctx context.Context, s *server, h *handshakes, dir string, serial int64) (time.Duration, error) {
	if err := swapPair(dir, serial); err != nil {
		return 0, err
	}
	seen := h.expect(serial)
	started := time.Now()
	if err := syscall.Kill(s.PID(), syscall.SIGHUP); err != nil {
		return 0, fmt.Errorf("reload: SIGHUP: %w", err)
	}
	timer := time.NewTimer(inTime)
	defer timer.Stop()
	select {
	case <-seen:
		return time.Since(started), nil
	case <-timer.C:
		return 0, fmt.Errorf("certificate %d is not met within %v\n%s", serial, inTime, s.Log())
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// swapPair writes a pair into a directory of its own and has the link "current" lead there, at once for both files.
func swapPair(dir string, serial int64) error {
	name := fmt.Sprint("pair", serial)
	if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	if err := writePair(filepath.Join(dir, name), serial); err != nil {
		return fmt.Errorf("reload: certificate: %w", err)
	}
	link := filepath.Join(dir, "current")
	if err := os.Symlink(name, link+".new"); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	if err := os.Rename(link+".new", link); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	return nil
}

func writePair(dir string, serial int64) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial + 1), // 0 is not allowed (RFC 5280, section 4.1.2.2).
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"localhost"},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "tls.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600),
		os.WriteFile(filepath.Join(dir, "tls.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
	)
}

// handshakes are an open loop: each begins at its time, on a connection of its own.
type handshakes struct {
	t       tally
	address string
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu       sync.Mutex // guards what follows
	newest   int64      // the newest serial number that was met
	expected int64
	seen     chan struct{} // closed when expected is met
	stale    int           // handshakes that began after newest was met, and met an older one
}

func startHandshakes(ctx context.Context, rate int, address string) *handshakes {
	h := &handshakes{t: tally{kind: "tls handshakes"}, address: address}
	ctx, h.cancel = context.WithCancel(ctx)
	h.wg.Go(func() {
		started := time.Now()
		for n := 0; ; n++ {
			at := started.Add(time.Duration(n) * time.Second / time.Duration(rate))
			if wait(ctx, time.Until(at)) != nil {
				return
			}
			h.wg.Go(func() { h.t.operation(func() error { return h.shake(context.WithoutCancel(ctx)) }) })
		}
	})
	return h
}

// expect returns a channel that is closed when a handshake has met a serial number.
func (h *handshakes) expect(serial int64) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.expected, h.seen = serial, make(chan struct{})
	return h.seen
}

// shake makes a handshake and a request, because in TLS 1.3 a client does not see the end of it before an answer.
func (h *handshakes) shake(ctx context.Context) error {
	h.mu.Lock()
	newest := h.newest
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, operationTime)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // The certificates sign themselves.
	c, err := d.DialContext(ctx, "tcp", h.address)
	if err != nil {
		return err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	if _, err := io.WriteString(c, "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	secure, ok := c.(*tls.Conn)
	if !ok {
		return fmt.Errorf("a TLS dialer returned a %T", c)
	}
	h.met(newest, secure.ConnectionState().PeerCertificates[0].SerialNumber.Int64()-1)
	return nil
}

// met takes down that a handshake which began when newest had been met has met serial.
func (h *handshakes) met(newest, serial int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if serial < newest {
		h.stale++
	}
	if serial > h.newest {
		h.newest = serial
	}
	if h.seen != nil && serial == h.expected {
		close(h.seen)
		h.seen = nil
	}
}

// finish ends the loop and prints what came of it.
func (h *handshakes) finish(o *options) error {
	h.cancel()
	h.wg.Wait()
	err := tallies{&h.t}.write(o.out, "certificates")
	if h.stale > 0 {
		err = errors.Join(err, fmt.Errorf("%d handshakes met an older certificate than those before", h.stale))
	}
	return err
}
