package settings

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestEveryKeySaysHowItIsApplied: the field of each key has an apply tag.
func TestEveryKeySaysHowItIsApplied(t *testing.T) {
	t.Parallel()
	for _, k := range Keys() {
		if k.Apply != "runtime" && k.Apply != "restart" {
			t.Errorf("%s.%s, which is %s in the file, has apply:%q; want runtime or restart", k.Struct, k.Field, k.Path, k.Apply)
		}
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	all := Keys()
	for path, want := range map[string]string{
		"listeners[].tls.mode":   "off",
		"http1.idle_timeout":     "2m",
		"http1.min_body_rate":    "240",
		"limits.max_connections": "", // It is the machine's.
		"log.level":              "info",
		"static":                 `""`,
	} {
		at := slices.IndexFunc(all, func(k Key) bool { return k.Path == path })
		if at < 0 {
			t.Errorf("%s is missing", path)
			continue
		}
		if diff := cmp.Diff(want, all[at].Default); diff != "" {
			t.Errorf("default of %s (-want +got):\n%s", path, diff)
		}
	}
	for _, secret := range secretKeys {
		if !slices.ContainsFunc(all, func(k Key) bool { return k.Path == secret }) {
			t.Errorf("%s is secret, and no key", secret)
		}
	}
}

func TestSections(t *testing.T) {
	t.Parallel()
	var got []string
	for _, s := range Sections() {
		got = append(got, s.Path)
	}
	want := []string{
		"listeners", "listeners[].tls", "listeners[].tls.certificates", "listeners[].proxy_protocol", "sniff", "limits", "http1", "http2", "grpc", "websocket",
		"health", "drain", "admin", "log",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
