package admin

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/pool"
)

func TestConnections(t *testing.T) {
	t.Parallel()
	tests := []struct {
		query string
		total int
		ids   []uint64
	}{
		{"", 3, []uint64{1, 2, 3}},
		{"?sort=id", 3, []uint64{1, 2, 3}},
		{"?sort=age", 3, []uint64{2, 1, 3}},
		{"?sort=bytes", 3, []uint64{3, 2, 1}},
		{"?sort=bytes&limit=1", 3, []uint64{3}},
		{"?protocol=http1", 2, []uint64{1, 3}},
		{"?protocol=sniffing", 0, nil},
		{"?limit=10000", 3, []uint64{1, 2, 3}},
	}
	for _, tt := range tests {
		t.Run(tt.query, func(t *testing.T) {
			t.Parallel()
			w := get(t, example(), "localhost", "/connections"+tt.query)
			var got connectionsView
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			var ids []uint64
			for _, c := range got.Connections {
				ids = append(ids, c.ID)
			}
			if diff := cmp.Diff(tt.ids, ids); diff != "" || got.Total != tt.total {
				t.Errorf("total %d, want %d; ids (-want +got):\n%s", got.Total, tt.total, diff)
			}
			if strings.Contains(w.Body.String(), "null") {
				t.Errorf("null in %s", w.Body)
			}
		})
	}
}

func TestConnectionsRefusesBadValues(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"?protocol=spdy": `protocol: "spdy" is not one of grpc, http1, sniffing`,
		"?sort=size":     `sort: "size" is not one of age, bytes, id`,
		"?limit=0":       `limit: "0" is not a number from 1 to 10000`,
		"?limit=10001":   `limit: "10001" is not a number from 1 to 10000`,
		"?limit=many":    `limit: "many" is not a number from 1 to 10000`,
	}
	for query, want := range tests {
		w := get(t, example(), "localhost", "/connections"+query)
		var got map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Errorf("%s: %v", query, err)
		}
		if diff := cmp.Diff(map[string]string{"error": want}, got); diff != "" || w.Code != http.StatusBadRequest {
			t.Errorf("%s: status %d (-want +got):\n%s", query, w.Code, diff)
		}
	}
}

// TestConnectionsShowNoSecret fails for a new field in the list of connections, until its
// author has decided who may read it. No field has content: no path, no header, no key.
func TestConnectionsShowNoSecret(t *testing.T) {
	t.Parallel()
	harmless := []string{
		"alpn", "bytes_received", "bytes_sent", "cipher", "client_subject", "id", "in_flight", "last_activity", "local_addr",
		"messages_received", "messages_sent", "opened", "protocol", "remote_addr", "requests", "server_name", "state", "tls",
		"verdict", "verdict_bytes", "verdict_micros", "version",
	}
	for _, shown := range []reflect.Type{reflect.TypeFor[pool.Info](), reflect.TypeFor[pool.TLSInfo]()} {
		for field := range shown.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if !slices.Contains(harmless, name) {
				t.Errorf("%s.%s is shown as %q: can it be a secret?", shown, field.Name, name)
			}
		}
	}
}
