package demo

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// readEvents reads lines of an event stream until n events have come, and returns them.
func readEvents(t *testing.T, target, lastID string, n int) []string {
	t.Helper()
	srv := httptest.NewServer(Routes(Files{}))
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+target, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %q", got)
	}
	var got []string
	for lines := bufio.NewScanner(resp.Body); n > 0 && lines.Scan(); {
		got = append(got, lines.Text())
		if strings.HasPrefix(lines.Text(), "data: ") {
			n--
		}
	}
	if n > 0 {
		t.Fatalf("the stream ended %d events early, after %q", n, got)
	}
	return got
}

func TestEvents(t *testing.T) {
	t.Parallel()
	tests := []struct {
		lastID string
		first  string
	}{
		{"", "1"},
		{"41", "42"},
		{"no number", "1"},
		{"-5", "1"},
	}
	for _, tt := range tests {
		got := strings.Join(readEvents(t, "/sse?interval=10ms", tt.lastID, 2), "\n")
		want := "retry: 1000\n\nid: " + tt.first + "\ndata: {\"sequence\":" + tt.first + `,"proto":"HTTP/1.1","protocol":"","conn_id":0}` + "\n\nid: "
		if !strings.HasPrefix(got, want) {
			t.Errorf("behind the event %q came\n%s\nwant at first\n%s", tt.lastID, got, want)
		}
	}
}

func TestEventsRefused(t *testing.T) {
	t.Parallel()
	left, cancel := context.WithCancel(t.Context())
	cancel() // So that a stream would end at once.
	for _, value := range []string{"1", "-1s", "0s", "9ms", "6m", "soon"} {
		w := httptest.NewRecorder()
		Routes(Files{}).ServeHTTP(w, httptest.NewRequestWithContext(left, http.MethodGet, "/sse?interval="+value, nil))
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "is not a time from 10ms to 5m0s") {
			t.Errorf("interval=%s: %d %s", value, w.Code, w.Body)
		}
	}
	if w := serveRequest(t, Files{}, http.MethodHead, "/sse", nil); w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD answered %d %v", w.Code, w.Header()) // It would not come back from a stream.
	}
	if w := serveRequest(t, Files{}, http.MethodPost, "/sse", nil); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST answered %d", w.Code)
	}
}
