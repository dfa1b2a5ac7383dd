//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/mux"
)

// The log messages of a reload.
const (
	logReloaded  = "configuration reloaded"
	logUnchanged = "configuration and certificates unchanged"
	logFailed    = "configuration and certificates not reloaded"
)

// reloadable is a muxserve with a configuration file.
type reloadable struct {
	*running

	file   string
	client *http.Client
}

// startReloadable runs the binary with a configuration file. Both listeners in text have
// port 0.
func startReloadable(t *testing.T, text string, args ...string) *reloadable {
	t.Helper()
	r := &reloadable{file: filepath.Join(t.TempDir(), "muxserve.yaml"), client: httpClient(t, false)}
	r.write(t, text)
	r.running = startWith(t, nil, append([]string{"--config", r.file, textLog}, args...)...)
	return r
}

// write replaces the file, as an editor does.
func (r *reloadable) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(r.file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(r.file+".new", r.file); err != nil {
		t.Fatal(err)
	}
}

// post asks the admin listener to change the configuration.
func (r *reloadable) post(t *testing.T, path string) (status int, body string) {
	t.Helper()
	u := *r.admin
	u.Path, u.RawQuery, _ = strings.Cut(path, "?")
	status, data, err := fetch(t.Context(), r.client, http.MethodPost, &u, nil)
	if err != nil {
		t.Fatal(err)
	}
	return status, strings.TrimSpace(string(data))
}

// outcomes returns the versions on the admin listener.
func (r *reloadable) outcomes(t *testing.T) []string {
	t.Helper()
	u := *r.admin.JoinPath("config")
	u.RawQuery = "format=json"
	_, data, err := fetch(t.Context(), r.client, http.MethodGet, &u, nil)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Version int
		History []mux.Version
	}
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	all := []string{fmt.Sprint("in force: ", list.Version)}
	for _, v := range list.History {
		origin, _, _ := strings.Cut(v.Origin, ", 127.0.0.1")
		all = append(all, fmt.Sprintf("%d %s by %s: %d changes", v.Number, v.Outcome, origin, len(v.Changes)))
	}
	return all
}

// reloadMetric returns mux_config_last_reload_successful.
func (r *reloadable) reloadMetric(t *testing.T) string {
	t.Helper()
	_, data, err := fetch(t.Context(), r.client, http.MethodGet, r.admin.JoinPath("metrics"), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "\nmux_config_last_reload_successful ")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

const anyPorts = "listeners: [{address: \"127.0.0.1:0\"}]\nadmin: {address: \"127.0.0.1:0\"}\ndrain: {spread: 0s}\n"

// TestReloadHistory tries every outcome of a reload and every way to request one.
func TestReloadHistory(t *testing.T) {
	t.Parallel()
	r := startReloadable(t, anyPorts)
	r.signal(t, syscall.SIGHUP)
	r.logged(t, logUnchanged, 1)
	r.write(t, anyPorts+"limits: {max_connections: 77}\nlog: {access: true}\n")
	r.signal(t, syscall.SIGHUP)
	r.logged(t, logReloaded, 1)
	r.write(t, anyPorts+"htpt1: {}\nlog: {level: loud}\n")
	status, body := r.post(t, "config/reload")
	want := fmt.Sprintf(`{"error":"the configuration is as it was","faults":[%q,%q]}`,
		r.file+":4: htpt1: unknown key; did you mean http1?", r.file+`:5: log.level: want one of debug, info, warn, error, not the text "loud"`)
	if diff := cmp.Diff(want, body); diff != "" || status != http.StatusUnprocessableEntity {
		t.Errorf("status %d (-want +got):\n%s", status, diff)
	}
	if status, body := r.post(t, "config/rollback?version=1"); status != http.StatusOK {
		t.Errorf("rollback: status %d %s", status, body)
	}
	if status, body := r.post(t, "config/rollback?version=3"); status != http.StatusUnprocessableEntity {
		t.Errorf("rollback to what was never in force: status %d %s", status, body)
	}
	const admin = "admin listener"
	diff := cmp.Diff([]string{
		"in force: 4", "1 applied by start: 0 changes", "2 applied by SIGHUP: 2 changes", "3 failed by " + admin + ": 0 changes",
		"4 applied by " + admin + ": 2 changes", "5 failed by " + admin + ": 0 changes",
	}, r.outcomes(t))
	if diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestReloadOwnKeys changes the keys that are not in mux.Config.
func TestReloadOwnKeys(t *testing.T) {
	t.Parallel()
	static := t.TempDir()
	if err := os.WriteFile(filepath.Join(static, "a"), []byte("A"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startReloadable(t, anyPorts)
	old := r.admin.Host
	moved := unusedAddress(t)
	r.write(t, fmt.Sprintf("listeners: [{address: \"127.0.0.1:0\"}]\ndrain: {spread: 0s}\nadmin: {address: %q, token: s3cret}\nstatic: %q\nwatch: true\nlog: {level: debug, access: true}\n",
		moved, static))
	if status, body := r.post(t, "config/reload"); status != http.StatusOK || strings.Contains(body, "s3cret") {
		t.Fatalf("status %d %s", status, body)
	}
	r.admin.Host = moved
	if status := r.adminStatus(t, r.client, "readyz"); status != http.StatusOK {
		t.Errorf("the new admin address answers %d", status)
	}
	r.client.CloseIdleConnections()
	r.admin.Host = old
	if status := r.adminStatus(t, r.client, "readyz"); status != 0 {
		t.Errorf("the old admin address answers %d", status)
	}
	r.admin.Host = moved
	if status, data, err := fetch(t.Context(), r.client, http.MethodGet, r.service.JoinPath("static/a"), nil); status != http.StatusOK || string(data) != "A" {
		t.Errorf("/static/a: %d %q %v", status, data, err)
	}
	r.logged(t, "level=DEBUG", 1)
	// The file is watched now.
	r.write(t, fmt.Sprintf("listeners: [{address: \"127.0.0.1:0\"}]\ndrain: {spread: 0s}\nadmin: {address: %q}\n", moved))
	r.logged(t, "origin=watch", 1)
	if status, _, _ := fetch(t.Context(), r.client, http.MethodGet, r.service.JoinPath("static/a"), nil); status != http.StatusNotFound {
		t.Errorf("/static/a: %d", status)
	}
}

// TestWatchSymlinks swaps a directory as Kubernetes does with a ConfigMap. A faulty file
// is reported once, and again after a different fault.
func TestWatchSymlinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	generation := 0
	swap := func(text string) {
		t.Helper()
		generation++
		name := fmt.Sprint("..", generation)
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "muxserve.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(name, filepath.Join(dir, "..new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	swap(anyPorts)
	file := filepath.Join(dir, "muxserve.yaml")
	if err := os.Symlink(filepath.Join("..data", "muxserve.yaml"), file); err != nil {
		t.Fatal(err)
	}
	r := &reloadable{file: file, client: httpClient(t, false)}
	r.running = startWith(t, nil, "--config", file, "--watch", textLog)
	swap(anyPorts + "limits: {max_connections: 77}\n")
	r.logged(t, logReloaded, 1)
	swap("")
	r.logged(t, "the file is empty", 1)
	swap("limits: {max_connections: many}\n")
	r.logged(t, "want a whole number", 1)
	swap(anyPorts + "limits: {max_connections: 78}\n")
	r.logged(t, logReloaded, 2)
	if n := strings.Count(r.stderr.String(), logFailed); n != 2 {
		t.Errorf("%d failures are logged, want 2", n)
	}
}

// TestRollbackReadsToken: a rollback reads the file of the token anew. A token that was taken
// back does not come into force again.
func TestRollbackReadsToken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf("listeners: [{address: \"127.0.0.1:0\"}]\nadmin: {address: \"127.0.0.1:0\", token_file: %q}\ndrain: {spread: 0s}\n", file)
	write("first")
	r := startReloadable(t, text)
	post := func(path, token string, want int) {
		t.Helper()
		u := *r.admin
		u.Path, u.RawQuery, _ = strings.Cut(path, "?")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, u.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s with the token %s: %s, want %d; %s", path, token, resp.Status, want, body)
		}
	}
	const level = "log?level=info"
	post(level, "first", http.StatusOK)
	write("second")
	r.write(t, text+"limits: {max_connections: 77}\n")
	post("config/reload", "first", http.StatusOK)
	post(level, "first", http.StatusUnauthorized)
	post("config/rollback?version=1", "second", http.StatusOK)
	post(level, "first", http.StatusUnauthorized)
	post(level, "second", http.StatusOK)
	post("config/rollback?version=2", "second", http.StatusOK)
	write("third")
	post("config/rollback?version=1", "second", http.StatusOK)
	post(level, "second", http.StatusUnauthorized)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	post("config/rollback?version=2", "third", http.StatusUnprocessableEntity)
	post(level, "third", http.StatusOK)
	diff := cmp.Diff([]string{
		"in force: 5", "1 applied by start: 0 changes", "2 applied by admin listener: 2 changes", "3 applied by admin listener: 1 changes",
		"4 applied by admin listener: 1 changes", "5 applied by admin listener: 2 changes", "6 failed by admin listener: 0 changes",
	}, r.outcomes(t))
	if diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
