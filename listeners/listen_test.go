package listeners

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestListenTCP(t *testing.T) {
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address := l.Addr().String()

	_, err = Listen(t.Context(), address)
	checkError(t, err, []string{"listeners: ", address})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("error %v is not EADDRINUSE", err)
	}
}

func TestListenBadAddress(t *testing.T) {
	for _, address := range []string{"unix:", "127.0.0.1", "127.0.0.1:port-that-is-not", "unix:/no/such/dir/x.sock"} {
		t.Run(address, func(t *testing.T) {
			_, err := Listen(t.Context(), address)
			checkError(t, err, []string{"listeners: ", address})
		})
	}
	_, err := Listen(t.Context(), "")
	checkError(t, err, []string{"listeners: address: empty"})
}

func TestListenUnixRemovesItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sock")
	l, err := Listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	if err := New(l, nil).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket file after Close: %v, want it gone", err)
	}
}

func TestListenUnixStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()

	l, err := Listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatalf("a stale file keeps the path taken: %v", err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestListenUnixLive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sock")
	live, err := Listen(t.Context(), "unix:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()

	_, err = Listen(t.Context(), "unix:"+path)
	checkError(t, err, []string{path, "another process answers"})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("error %v is not EADDRINUSE", err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the live socket was touched: %v", err)
	}
	conn.Close()
}

func TestListenUnixNotASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Listen(t.Context(), "unix:"+path)
	checkError(t, err, []string{path, "not a socket"})
	if got, err := os.ReadFile(path); err != nil || string(got) != "data" {
		t.Errorf("the file was touched: %q, %v", got, err)
	}
}
