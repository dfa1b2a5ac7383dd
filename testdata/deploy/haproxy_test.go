package deploy

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestHAProxy runs the recipe for HAProxy as it is, but for the addresses, before two
// servers that have the flags which the recipe names. They see the client's address, and
// serve nobody else.
func TestHAProxy(t *testing.T) {
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		t.Fatal(err) // ci.sh installs it.
	}
	text, err := os.ReadFile(recipes + "/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	_, dir := image(t)
	flags := regexp.MustCompile(`(?m)^#\s+muxserve (--.*)$`).FindStringSubmatch(string(text))
	if flags == nil {
		t.Fatal("the recipe does not say how muxserve is run")
	}
	front := freeAddress(t)
	config := strings.Replace(string(text), "127.0.0.1:8000", front, 1)
	config = strings.Replace(config, "maxconn 20000", "maxconn 100", 1) // A machine of tests may have few descriptors.
	var services, admins []string
	servers := regexp.MustCompile(`(?m)^(\s+server \w+ )127.0.0.1:\d+ port \d+$`)
	config = servers.ReplaceAllStringFunc(config, func(line string) string {
		service, admin := freeAddress(t), freeAddress(t)
		services, admins = append(services, service), append(admins, admin)
		_, port, _ := net.SplitHostPort(admin)
		return servers.ReplaceAllString(line, "${1}"+service+" port "+port)
	})
	if len(services) != 2 {
		t.Fatalf("the recipe has %d servers", len(services))
	}
	for i := range services {
		args := append([]string{"--listen", services[i], "--admin", admins[i]}, strings.Fields(flags[1])...)
		start(t, exec.Command(filepath.Join(dir, "muxserve"), args...), admins[i]) //nolint:gosec,noctx // The recipe says how.
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	write(t, file, config)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, haproxy, "-db", "-f", file)
	said := new(log)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stop()
		_ = cmd.Wait() // It was killed.
		if t.Failed() {
			t.Logf("HAProxy said:\n%s", said)
		}
	}()

	const client = "127.0.0.2"
	transport := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}).DialContext}
	defer transport.CloseIdleConnections()
	eventually(t, "HAProxy answers", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+front+"/echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body) // The connection is kept then, and stands in the list below.
		return err == nil && resp.StatusCode == http.StatusOK
	})
	var all strings.Builder
	for _, admin := range admins {
		code, body := get(t, plain, "http://"+admin+"/connections", "")
		if code != http.StatusOK {
			t.Errorf("/connections: %d", code)
		}
		all.WriteString(body)
	}
	if !strings.Contains(all.String(), `"`+client+":") {
		t.Errorf("no server sees the client %s:\n%s", client, all.String())
	}
	if resp, err := plain.Get("http://" + services[0] + "/echo"); err == nil { //nolint:noctx // It ends at once.
		resp.Body.Close()
		t.Errorf("without a PROXY header: %s", resp.Status)
	}
}
