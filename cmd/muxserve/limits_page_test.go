package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
)

// limitRow is a row of a table of LIMITS.md.
type limitRow struct{ what, key, byDefault, edge, seen string }

// limitTests has the tests that show what a client sees at the limit, by the row's key, or by
// what it is about where it has none.
var limitTests = map[string]string{
	"limits.max_connections": "TestTotalLimit",
	"limits.on_limit":        "TestWaitAtLimit",
	"limits.per_address":     "TestAddressLimit",
	"http1.max_connections":  "TestHTTP1Limit",
	"http2.max_connections":  "TestHTTP2Limit",
	"grpc.max_connections":   "TestGRPCLimit",
	"such a connection, where its client does not take the answers":                "TestRefusedLeave",
	"websocket.max_connections":                                                    "TestWebSocketLimit",
	"a reload that lowers it below the open WebSockets":                            "TestWebSocketLimit",
	"a reload that lowers another of these below what is open":                     "TestLoweredLimitMakesRoom",
	"one of these that is full, with idle connections in it":                       "TestIdleMakesRoom",
	"all connections full, and some are without a request":                         "TestMuteMakeRoom",
	"the same, and those are silent for 250 ms and younger than that":              "TestYoungMakeRoomLast",
	"one of these that is full, with handshakes or heads that have taken a second": "TestSlowMakeRoom",
	"the same, with native gRPC clients that do not take their answers":            "TestStuckAnswersMakeRoom",
	"HTTP/2 connections without a request":                                         "TestUndecidedMakeRoom",
	"sniff.timeout":                                                                "TestSniffFailures",
	"sniff.max_bytes":                                                              "TestDesign04LongHeads",
	"sniff.tls_timeout":                                                            "TestTLSTimeout",
	"http2.idle_timeout":                                                           "TestHTTP2IdleTimeout",
	"HTTP/2 over TLS 1.2":                                                          "TestInadequateSecurity",
	"http1.header_timeout":                                                         "TestHTTP1SettingsOnTheWire",
	"http1.max_header_bytes":                                                       "TestHTTP1SettingsOnTheWire",
	"http2.max_header_list_bytes":                                                  "TestHTTP2SettingsAreEnforced",
	"http2.max_frame_bytes":                                                        "TestHTTP2SettingsAreEnforced",
	"http2.max_streams":                                                            "TestHTTP2SettingsAreEnforced",
	"grpc.max_streams":                                                             "TestGRPCSettingsOnTheWire",
	"the same, where the client was told to leave, as in a drain":                  "TestDrainOfHeadsWithoutEnd",
	"http2.stream_window":                                                          "TestWindowsOfEachServer",
	"http2.connection_window":                                                      "TestWindowsOfEachServer",
	"grpc.stream_window":                                                           "TestGRPCSettingsOnTheWire",
	"files of `--static` that are open until a client has taken them":              "TestStuckFiles",
	"connections of the admin listener":                                            "TestConnsAreBounded",
	"grpc.connection_window":                                                       "TestGRPCSettingsOnTheWire",
	"bytes of a call that are read ahead of its handler, on other connections":     "TestSharedBodyIsBounded",
	"the same of all calls of a connection":                                        "TestStalledCallsHoldBackNoOthers",
	"HTTP/2 body of declared length that its handler leaves unread":                "TestLeftBody",
	"grpc.max_recv_bytes":                                                          "TestGRPCMessageSizes",
	"grpc.max_send_bytes":                                                          "TestGRPCMessageSizes",
	"websocket.read_limit":                                                         "TestWebSocketReadLimit",
	"http1.min_body_rate":                                                          "TestSlowBody",
	"http2.min_body_rate":                                                          "TestSlowBody",
	"http1.body_grace":                                                             "TestSlowBody",
	"http2.body_grace":                                                             "TestSlowBody",
	"http1.progress_timeout":                                                       "TestStalledReader",
	"http2.progress_timeout":                                                       "TestStalledStream",
	"http1.request_timeout":                                                        "TestRequestTimeout",
	"http2.request_timeout":                                                        "TestRequestTimeout",
	"http2.max_resets_per_minute":                                                  "TestTooManyResets",
	"streams that it opens behind that":                                            "TestTooManyResets",
	"frames that the server owes an HTTP/2 client":                                 "TestServerOwesLittle",
	"http1.idle_timeout":                                                           "TestHTTP1SettingsOnTheWire",
	"grpc.idle_timeout":                                                            "TestGRPCIdleTimeout",
	"websocket.idle_timeout":                                                       "TestWebSocketIdle",
	"http1.max_age":                                                                "TestMaxAge",
	"http2.max_age":                                                                "TestTwoStepGoAway",
	"grpc.max_age":                                                                 "TestGRPCMaxAge",
	"websocket.max_age":                                                            "TestAgedWebSocket",
	"http1.max_age_grace":                                                          "TestAgedRequestIsReset",
	"http2.max_age_grace":                                                          "TestAgeGrace",
	"grpc.max_age_grace":                                                           "TestGRPCMaxAge",
	"http1.max_requests":                                                           "TestMaxRequests",
	"http2.max_requests":                                                           "TestMaxRequestsShared",
	"http2.ping_interval":                                                          "TestHTTP2Pings",
	"http2.ping_timeout":                                                           "TestHTTP2Pings",
	"grpc.ping_interval":                                                           "TestGRPCPings",
	"grpc.ping_timeout":                                                            "TestGRPCPings",
	"grpc.min_ping_interval":                                                       "TestGRPCMinPingInterval",
	"websocket.ping_interval":                                                      "TestPeerWithoutPong",
	"websocket.pong_timeout":                                                       "TestPeerWithoutPong",
}

// noLimits are keys of the sections on the page that bound nothing.
var noLimits = []string{
	"http2.upgrade_h2c", "http2.websocket", "grpc.transport", "websocket.compression", "websocket.origin_patterns",
}

// TestLimits: LIMITS.md has every limit of the configuration, with its default, what edge
// makes of it, and a test that provokes it.
func TestLimits(t *testing.T) {
	t.Parallel()
	byDefault, edge := valuesOf(t), valuesOf(t, "--profile=edge")
	tests := testsOfModule(t)
	var rows []limitRow
	for _, cells := range tableRows(readPage(t, "LIMITS.md")) {
		if len(cells) != 5 {
			t.Fatalf("%d cells: %q", len(cells), cells)
		}
		rows = append(rows, limitRow{cells[0], strings.Trim(cells[1], "`"), cells[2], cells[3], cells[4]})
	}
	shown := make(map[string]bool)
	for _, row := range rows {
		name := row.what
		if row.key != "" {
			name = row.key
			shown[row.key] = true
			checkLimit(t, row, byDefault, edge)
		}
		if test := limitTests[name]; !tests[test] {
			t.Errorf("%s: there is no test %q", name, test)
		}
	}
	for _, k := range settings.Keys() {
		section, _, _ := strings.Cut(k.Path, ".")
		isLimit := slices.Contains([]string{"limits", "sniff", "http1", "http2", "grpc", "websocket"}, section) && !slices.Contains(noLimits, k.Path)
		if isLimit != shown[k.Path] {
			t.Errorf("%s: is a limit: %v, is on the page: %v", k.Path, isLimit, shown[k.Path])
		}
	}
}

// checkLimit compares a row with the values of its key.
func checkLimit(t *testing.T, row limitRow, byDefault, edge map[string]string) {
	t.Helper()
	value, known := byDefault[row.key]
	if !known {
		t.Errorf("there is no key %s", row.key)
		return
	}
	want := limitText(row.key, value)
	if row.key == "limits.max_connections" {
		want = "0.9 x (open files - 64), at most 50000" // TestDefaultConnections of package pool.
	}
	if row.byDefault != want {
		t.Errorf("%s: the default is %s, the page says %s", row.key, want, row.byDefault)
	}
	want = ""
	if edge[row.key] != value {
		want = limitText(row.key, edge[row.key])
	}
	if row.edge != want {
		t.Errorf("%s: edge has %q, the page says %q", row.key, want, row.edge)
	}
}

// limitText is a value in the words of the page.
func limitText(key, value string) string {
	n, err := strconv.Atoi(value)
	switch {
	case strings.HasPrefix(key, "grpc.") && strings.HasSuffix(key, "_window") && n == 0 && err == nil:
		return "grpc-go's estimate"
	case value == "0" || value == "0s":
		return "no bound"
	case strings.HasSuffix(key, "_rate"):
		return value + " B/s"
	case err != nil || !strings.HasSuffix(key, "_bytes") && !strings.HasSuffix(key, "_window") && key != "websocket.read_limit":
		return value
	case n%(1<<20) == 0:
		return strconv.Itoa(n>>20) + " MiB"
	case n%(1<<10) == 0:
		return strconv.Itoa(n>>10) + " KiB"
	default:
		return value + " B"
	}
}

// valuesOf returns the values of all keys that are in no list, by path, as muxserve with
// these arguments has them.
func valuesOf(t *testing.T, args ...string) map[string]string {
	t.Helper()
	parsed, err := cli.Parse(settings.Flags(), args)
	if err != nil {
		t.Fatal(err)
	}
	s, err := settings.Load(parsed, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := s.Write(&text); err != nil {
		t.Fatal(err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(text.String()), &root); err != nil {
		t.Fatal(err)
	}
	values := make(map[string]string)
	var walk func(n *yaml.Node, path string)
	walk = func(n *yaml.Node, path string) {
		if n.Kind != yaml.MappingNode {
			values[strings.TrimPrefix(path, ".")] = n.Value
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			walk(n.Content[i+1], path+"."+n.Content[i].Value)
		}
	}
	walk(root.Content[0], "")
	return values
}

// tableRows returns the cells of all tables in a text, without the heads.
func tableRows(text string) (rows [][]string) {
	inTable := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			inTable = 0
			continue
		}
		if inTable++; inTable <= 2 {
			continue
		}
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "|"), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}

// testsOfModule returns the names of the tests of this module.
func testsOfModule(t *testing.T) map[string]bool {
	t.Helper()
	names := make(map[string]bool)
	pattern := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, dir := range []string{"cmd", "lifecycle", "listeners", "mux", "pool", "protocols"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, _ os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			data, err := os.ReadFile(path)
			for _, m := range pattern.FindAllSubmatch(data, -1) {
				names[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}
