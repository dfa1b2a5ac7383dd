package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/mux"
)

// TestOwnChanges changes every key that is not in mux.Config. The changes have the apply
// tags of the fields, and describe their effect.
func TestOwnChanges(t *testing.T) {
	t.Parallel()
	current, next := settings.Default(), settings.Default()
	next.Admin, next.Static, next.Watch = settings.Admin{Address: "off", Token: "s3cret"}, "/", true
	next.Log = settings.Log{Level: 8, Format: settings.FormatText, Access: true}
	inMux := reflect.TypeFor[mux.Config]()
	want := make(map[string]string)
	for _, k := range settings.Keys() {
		section, _, _ := strings.Cut(strings.Replace(k.Path, "[]", "", 1), ".")
		if !slices.ContainsFunc(reflect.VisibleFields(inMux), func(f reflect.StructField) bool { return f.Tag.Get("yaml") == section }) {
			want[k.Path] = k.Apply
		}
	}
	got := make(map[string]string)
	for _, c := range ownChanges(current, next) {
		got[c.Path] = c.Apply
		if c.How == "" || c.Old == c.New || strings.Contains(c.New, "s3cret") {
			t.Errorf("change %+v", c)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if changes := ownChanges(next, next); changes != nil {
		t.Errorf("changes of nothing: %v", changes)
	}
}
