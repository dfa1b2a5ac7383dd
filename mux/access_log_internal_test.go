package mux

import (
	"bufio"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"unsafe"
)

// TestAccessKeepsNoQuery: while a line waits for the log, it keeps no more of the request
// line than it says.
func TestAccessKeepsNoQuery(t *testing.T) {
	at := func(s string) uintptr { return uintptr(unsafe.Pointer(unsafe.StringData(s))) }
	long := strings.Repeat("q", 60_000)
	for _, line := range []string{"GET /path?" + long, long + " /path"} {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line + " HTTP/1.1\r\nHost: x\r\n\r\n")))
		if err != nil {
			t.Fatal(err)
		}
		a := httpAccess(r)
		if a.method != "GET" && !strings.HasPrefix(a.method, "qqq") || a.path != "/path" {
			t.Errorf("%q %q", a.method, a.path)
		}
		for _, s := range []string{a.method, a.path} {
			if from := at(r.Method); at(s) >= from && at(s) < from+uintptr(len(line)) {
				t.Errorf("%q is a part of the request line", s)
			}
		}
	}
	header := "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-" + strings.Repeat("m", 60_000)
	trace, _, ok := parseTraceparent(header)
	if !ok || at(trace) >= at(header) && at(trace) < at(header)+uintptr(len(header)) {
		t.Error("the trace's id is a part of its header")
	}
}

// validTraceparent is W3C Trace Context, section 3.2, as a regular expression.
var validTraceparent = regexp.MustCompile(`^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-[\s\S]*)?$`)

// FuzzTraceparent compares the parser with the regular expression.
func FuzzTraceparent(f *testing.F) {
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for _, seed := range []string{
		"", good, good + "-more", "01" + good[2:] + "-more", "01" + good[2:] + "x", "ff" + good[2:],
		strings.ToUpper(good), strings.Replace(good, "00f067aa0ba902b7", "0000000000000000", 1),
		strings.Replace(good, "4bf92f3577b34da6a3ce929d0e0e4736", strings.Repeat("0", 32), 1), good[:54], good + "\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m := validTraceparent.FindStringSubmatch(s)
		want := m != nil && m[1] != "ff" && strings.Trim(m[2], "0") != "" && strings.Trim(m[3], "0") != "" && (m[1] != "00" || m[4] == "")
		trace, span, ok := parseTraceparent(s)
		if ok != want || ok && (trace != m[2] || span != m[3]) {
			t.Errorf("%q: %s %s %v, want %v", s, trace, span, ok, want)
		}
	})
}
