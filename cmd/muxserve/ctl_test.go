package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// ctl runs "muxserve ctl" against a process.
func (p *running) ctl(t *testing.T, args ...string) result {
	t.Helper()
	return runCommand(t.Context(), nil, append([]string{"ctl", "--admin", p.admin.Host}, args...)...)
}

// expect runs "muxserve ctl", whose exit code and output must fit.
func (p *running) expect(t *testing.T, code int, want string, args ...string) string {
	t.Helper()
	got := p.ctl(t, args...)
	if all := got.stdout + got.stderr; got.code != code || !regexp.MustCompile(want).MatchString(all) {
		t.Errorf("ctl %q: code %d, want %d and %s:\n%s", args, got.code, code, want, all)
	}
	return got.stdout
}

// TestCtl goes through all verbs with a server.
func TestCtl(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "muxserve.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("drain: {delay: 0s, spread: 0s}\nlog: {level: warn}\n")
	p := start(t, "--config", file)
	client := httpClient(t, false)
	ready := func() int { return p.adminStatus(t, client, "readyz") }

	p.expect(t, exitOK, `(?s)serving, healthy; up .* connections.*http1 +healthy`, "status")
	p.expect(t, exitOK, `^{"status":"healthy"`, "--json", "status")

	ws := p.dialWebSocket(t)
	p.expect(t, exitOK, `websocket +upgraded +127\.0\.0\.1:`, "connections", "--protocol", "websocket", "--sort=age")
	p.expect(t, exitOK, `(?m)^0 of 0$`, "connections", "--peer", "192.0.2.1")
	id := regexp.MustCompile(`(?m)^(\d+) +websocket`).FindStringSubmatch(p.expect(t, exitOK, "websocket", "connections"))[1]
	p.expect(t, exitOK, "told to leave: 1; they are cut after 30 s", "close", id, "--patience=30s")
	if _, _, err := ws.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "StatusGoingAway") {
		t.Errorf("the WebSocket ended with %v, want 1001", err)
	}
	eventually(t, "it is listed as ended", func() bool { return strings.Contains(p.ctl(t, "closed").stdout, "disconnected") })
	p.expect(t, exitFailed, "no open connection has the id "+id, "close", id)
	p.expect(t, exitFailed, "no open connection has the peer 192.0.2.1", "close", "--peer", "192.0.2.1")

	p.expect(t, exitOK, "nothing has changed; version 1 is in force", "reload")
	write("drain: {delay: 0s, spread: 0s}\nlog: {level: warn}\nhttp1: {max_connections: 77}\n")
	p.expect(t, exitOK, `(?s)version 2 is in force.*http1.max_connections: 0 -> 77`, "reload")
	write("http1: {max_conections: 78}\n")
	p.expect(t, exitFailed, `(?s)the configuration is as it was.*muxserve.yaml:1: http1.max_conections: unknown key`, "reload")
	p.expect(t, exitOK, `(?s)version 4 is in force.*http1.max_connections: 77 -> 0`, "rollback", "1")
	p.expect(t, exitFailed, "99", "rollback", "99")
	write("drain: {delay: 0s, spread: 0s}\nlog: {level: warn}\n")

	p.expect(t, exitOK, "^not ready: switched off\n$", "ready", "off")
	if got := ready(); got != http.StatusServiceUnavailable {
		t.Errorf("/readyz after ready off: %d", got)
	}
	if status, _, err := fetch(t.Context(), client, http.MethodGet, p.service.JoinPath("readyz"), nil); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("/readyz of the service port: %d, %v", status, err)
	}
	if status, _, err := fetch(t.Context(), client, http.MethodGet, p.service.JoinPath("echo"), nil); err != nil || status != http.StatusOK {
		t.Errorf("a server out of rotation answers %d, %v", status, err)
	}
	p.expect(t, exitOK, "^ready\n$", "ready", "on")
	if got := ready(); got != http.StatusOK {
		t.Errorf("/readyz after ready on: %d", got)
	}

	p.expect(t, exitOK, "the log level is debug until the next reload", "log", "debug")
	eventually(t, "debug lines", func() bool {
		status, _, err := fetch(t.Context(), httpClient(t, false), http.MethodGet, p.service.JoinPath("echo"), nil)
		return err == nil && status == http.StatusOK && strings.Contains(p.stderr.String(), "connection recognised")
	})
	p.expect(t, exitOK, "in force", "reload")
	quiet := len(p.stderr.String())
	if status, _, err := fetch(t.Context(), httpClient(t, false), http.MethodGet, p.service.JoinPath("echo"), nil); err != nil || status != http.StatusOK {
		t.Errorf("/echo: %d, %v", status, err)
	}
	if got := p.stderr.String()[quiet:]; strings.Contains(got, "connection recognised") {
		t.Errorf("the level of a request outlives a reload:\n%s", got)
	}

	slow := slowRequest(t.Context(), httpClient(t, false), p.service, 2*time.Second)
	eventually(t, "a request is under way", func() bool { return p.connections(t, client, "active") == 1 })
	p.expect(t, exitOK, "^the server drains\n$", "drain")
	eventually(t, "draining", func() bool { return ready() == http.StatusServiceUnavailable })
	p.expect(t, exitFailed, "the server is draining already", "drain")
	p.expect(t, exitFailed, "the server is draining already", "ready", "on")
	p.expect(t, exitFailed, "the server is draining", "reload")
	p.expect(t, exitFailed, "the server is draining", "rollback", "1")
	p.expect(t, exitOK, "draining, unavailable", "status")
	p.expect(t, exitOK, "the log level is info", "log", "info")
	if err := <-slow; err != nil {
		t.Errorf("the request that was under way: %v", err)
	}
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	p.expect(t, exitFailed, "no answer from the admin listener at "+p.admin.Host, "status")
}

// TestCtlToken: the token comes from a flag, a variable, a file or the configuration.
func TestCtlToken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "--admin-token-file", token, "--admin-protect=all")
	file := filepath.Join(dir, "muxserve.yaml")
	// A fault elsewhere in the file does not matter, because it may be about to be mended.
	text := "admin: {address: \"" + p.admin.Host + "\", token_file: " + token + "}\nhttp1: {max_conections: 1}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	address := "--admin=" + p.admin.Host
	for _, tt := range []struct {
		vars map[string]string
		args []string
		code int
		want string
	}{
		{nil, []string{address, "status"}, exitFailed, "admin.token"},
		{nil, []string{address, "--admin-token=x", "reload"}, exitFailed, "--admin-token-file"},
		{nil, []string{address, "--admin-token=s3cret", "status"}, exitOK, "serving"},
		{nil, []string{address, "--admin-token-file", token, "reload"}, exitOK, "version 1"},
		{nil, []string{"--config", file, "status"}, exitOK, "serving"},
		{map[string]string{"MUXSERVE_ADMIN": p.admin.Host, "MUXSERVE_ADMIN_TOKEN": "s3cret"}, []string{"status"}, exitOK, "serving"},
		{map[string]string{"MUXSERVE_CONFIG": file}, []string{"log", "info"}, exitOK, "info"},
	} {
		got := runCommand(t.Context(), tt.vars, append([]string{"ctl"}, tt.args...)...)
		if all := got.stdout + got.stderr; got.code != tt.code || !strings.Contains(all, tt.want) {
			t.Errorf("%v ctl %q: code %d, want %d and %q:\n%s", tt.vars, tt.args, got.code, tt.code, tt.want, all)
		}
	}
}

// TestCtlUnix: a Unix socket is asked as well.
func TestCtlUnix(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "admin.sock")
	_ = startWith(t, nil, "--listen=127.0.0.1:0", "--admin=unix:"+path)
	got := runCommand(t.Context(), nil, "ctl", "--admin=unix:"+path, "ready", "off")
	if got.code != exitOK || got.stdout != "not ready: switched off\n" {
		t.Errorf("%+v", got)
	}
}

// TestCtlUsage: a wrong question is exit code 2, with the right form.
func TestCtlUsage(t *testing.T) {
	t.Parallel()
	p := start(t)
	for args, want := range map[string]string{
		"":                              "ctl needs one of status, connections, closed, reload, rollback, drain, ready, log, close",
		"stauts":                        "did you mean status?",
		"nothing":                       "it is one of status",
		"status now":                    "the form is: muxserve ctl status",
		"rollback":                      "the form is: muxserve ctl rollback VERSION",
		"rollback x":                    `version: "x" is not the number of a version; the form is: muxserve ctl rollback VERSION`,
		"ready":                         "the form is: muxserve ctl ready on|off",
		"ready maybe":                   `"maybe" is not one of on, off; the form is: muxserve ctl ready on|off`,
		"log loud":                      "the form is: muxserve ctl log debug|info|warn|error",
		"close":                         "the form is: muxserve ctl close ID | --peer ADDR",
		"close x":                       `id: "x" is not the number of a connection; the form is`,
		"close 1 --peer 192.0.2.1":      "the form is: muxserve ctl close",
		"close --peer all":              `peer: "all" is not an address such as`,
		"close 1 --patience soon":       `patience: "soon" is not a length of time`,
		"connections --limit 0":         `limit: "0" is not a number from 1`,
		"connections --protocol x":      `protocol: "x" is not one of`,
		"connections --sort size":       `sort: "size" is not one of age, bytes, id`,
		"closed --limit x":              `limit: "x" is not a number`,
		"status --limit 5":              "--limit has no effect with status",
		"status --patinece 5s":          "did you mean --patience?",
		"status --timeout=soon":         "is not a time such as",
		"status --admin=off":            "admin.address is off",
		"status --admin=fd:admin":       "a socket of the service manager",
		"status --admin=8081":           `"8081" is not HOST:PORT`,
		"status --config=/none/m.yaml":  "/none/m.yaml",
		"status --admin-token-file=/no": "/no",
	} {
		fields := strings.Fields(args)
		if !strings.Contains(args, "--admin=") && !strings.Contains(args, "--config=") {
			fields = append(fields, "--admin="+p.admin.Host)
		}
		got := runCommand(t.Context(), nil, append([]string{"ctl"}, fields...)...)
		if got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, want) {
			t.Errorf("ctl %s: got %+v, want exit code 2 and %q", args, got, want)
		}
	}
	got := runCommand(t.Context(), nil, "ctl", "--help")
	for _, v := range verbs {
		if got.code != exitOK || !strings.Contains(got.stdout, v.form()) {
			t.Errorf("the help lacks %s", v.form())
		}
	}
}

// TestBoundAddress: ctl dials the address that net.Listen has bound, and no other of a name's.
func TestBoundAddress(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for address, want := range map[string]string{
		"0.0.0.0:1":         "127.0.0.1:1",
		":1":                "127.0.0.1:1",
		"[::]:1":            "[::1]:1",
		"[::1]:1":           "[::1]:1",
		"192.0.2.1:1":       "192.0.2.1:1",
		"localhost:" + port: l.Addr().String(),
	} {
		client, err := newCtlClient(settings.Admin{Address: address})
		if err != nil || client.address != want {
			t.Errorf("%s: %v, %v, want %s", address, client, err, want)
		}
	}
	if _, err := newCtlClient(settings.Admin{Address: "localhost:no-such-port"}); err == nil {
		t.Error("no error for a port that there is not")
	}
}
