package stress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// The normal client: what it asks for, how often, and how it opens connections.
const (
	normalWorkers  = 4
	normalInterval = 5 * time.Millisecond // Of each worker.
	normalReuse    = 10                   // Requests a connection; opening one is what slow clients could hinder.
	normalTimeout  = 10 * time.Second
)

// answers is what a normal client got.
type answers struct {
	answered  int
	latencies []time.Duration // Sorted.
	errs      []error         // The first few.
}

// p99 returns the latency that one request in a hundred exceeds, the time to open
// a connection included.
func (a *answers) p99() time.Duration {
	if len(a.latencies) == 0 {
		return 0
	}
	const hundred = 100
	return a.latencies[len(a.latencies)-1-len(a.latencies)/hundred]
}

// ask makes requests to /echo for as long as do runs.
func ask(t *testing.T, addr string, withTLS bool, do func()) *answers {
	t.Helper()
	url := "http://" + addr + "/echo"
	if withTLS {
		url = "https://" + addr + "/echo"
	}
	done := make(chan struct{})
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex // guards got
		got answers
	)
	for range normalWorkers {
		wg.Go(func() {
			latencies, errs := worker(url, done)
			mu.Lock()
			defer mu.Unlock()
			got.latencies = append(got.latencies, latencies...)
			got.errs = append(got.errs, errs...)
		})
	}
	do()
	close(done)
	wg.Wait()
	slices.Sort(got.latencies)
	got.answered = len(got.latencies)
	return &got
}

// worker asks until done is closed, or for some errors.
func worker(url string, done <-chan struct{}) (latencies []time.Duration, errs []error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // A throw-away certificate.
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: normalTimeout}
	interval := time.NewTicker(normalInterval)
	defer interval.Stop()
	const enough = 5
	for i := 0; len(errs) < enough; i++ {
		if i%normalReuse == 0 {
			transport.CloseIdleConnections()
		}
		started := time.Now()
		if err := get(client, url); err != nil {
			errs = append(errs, err)
		} else {
			latencies = append(latencies, time.Since(started))
		}
		select {
		case <-done:
			return latencies, errs
		case <-interval.C:
		}
	}
	return latencies, errs
}

// get makes one request and reads the answer.
func get(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}

// certificate writes a throw-away certificate and returns the files in PEM.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", pkcs8)
}
