package protocols

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"golang.org/x/net/http2"

	"github.com/muxserve/muxserve/protocols/internal/wiretest"
)

// TestUpgradeAfterShutdown: a connection that is upgraded when the others have
// been told already is told as well.
func TestUpgradeAfterShutdown(t *testing.T) {
	t.Parallel()
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	hooks := HTTPHooks{Handler: answer, Logger: slog.New(slog.DiscardHandler)}
	upgrades, err := NewH2CUpgrades(DefaultHTTP2Config(), hooks, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(upgrades)
	defer srv.Close()
	upgrades.Shutdown()

	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings:\r\n\r\n"
	// The preface comes with the request, so net/http has read a part of it by
	// the time it gives the connection away.
	if _, err := conn.Write(append([]byte(request), wiretest.ClientBytes(func(fr *http2.Framer) { _ = fr.WriteSettings() })...)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", resp, err)
	}
	var body string
	var told bool
	for fr := http2.NewFramer(nil, r); ; {
		f, err := fr.ReadFrame()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			told = f.ErrCode == http2.ErrCodeNo
		case *http2.DataFrame:
			body += string(f.Data())
		}
	}
	if !told || body != "HTTP/2.0" {
		t.Errorf("told to leave: %v; answer %q", told, body)
	}
}
