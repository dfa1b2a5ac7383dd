package main

import (
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
	"github.com/muxserve/muxserve/cmd/muxserve/internal/settings"
	"github.com/muxserve/muxserve/listeners"
)

// section returns the text below a heading of the reference, up to the next heading.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, rest, found := strings.Cut(readPage(t, "README.md"), "\n"+heading+"\n")
	if !found {
		t.Fatalf("README.md has no %q", heading)
	}
	text, _, _ := strings.Cut(rest, "\n#")
	return text
}

// TestReferenceHelp: the reference shows the help that the binary prints.
func TestReferenceHelp(t *testing.T) {
	t.Parallel()
	got := runCommand(t.Context(), nil, "help").stdout
	if text := section(t, "## Commands and flags"); !strings.Contains(text, "```\n"+got+"```\n") {
		t.Errorf("README.md shows another help than:\n%s", got)
	}
}

// TestReferenceFlags: the flags that CONFIGURATION.md does not have are all in the
// reference, with their defaults.
func TestReferenceFlags(t *testing.T) {
	t.Parallel()
	for heading, flags := range map[string][]cli.Flag{"### Flags of probe": probeFlags, "### Verbs of ctl": ctlFlags} {
		want := "| flag | default | meaning |\n|---|---|---|\n"
		for _, f := range flags {
			value := f.Default
			if value != "" {
				value = "`" + value + "`"
			}
			want += fmt.Sprintf("| `%s` | %s | %s |\n", strings.TrimSpace("--"+f.Name+" "+f.Value), value, f.Help)
		}
		_, table, _ := strings.Cut(section(t, heading), "| flag")
		if diff := cmp.Diff(want, "| flag"+table); diff != "" {
			t.Errorf("%s (-want +README.md):\n%s", heading, diff)
		}
	}
}

// TestReferencePaths: the table of the service port has what the demo routes and the gRPC
// services that the binary names by reflection.
func TestReferencePaths(t *testing.T) {
	t.Parallel()
	text := section(t, "## What the service port serves")
	source := readPage(t, "demo/demo.go")
	found := regexp.MustCompile(`routes\.Handle(?:Func)?\("(?:[A-Z]+ )?([^"]+)"`).FindAllStringSubmatch(source, -1)
	if len(found) < 5 {
		t.Fatalf("demo.go has %d routes", len(found))
	}
	for _, m := range found {
		if path := strings.TrimSuffix(m[1], "{$}"); !strings.Contains(text, "| `"+path+"`") {
			t.Errorf("%s is missing", path)
		}
	}
	for _, service := range listServicesV1(t, start(t).dialGRPC(t)) {
		if name := strings.Replace(service, ".v1alpha.", ".v1.", 1); !strings.Contains(text, "| `"+name+"`") {
			t.Errorf("the gRPC service %s is missing", service)
		}
	}
}

// TestReadmeShowsTheStart: the README shows what the server prints at a terminal by default.
func TestReadmeShowsTheStart(t *testing.T) {
	t.Parallel()
	ofFlag := func(name string) net.Addr {
		for _, f := range settings.Flags() {
			if f.Name == name {
				return net.TCPAddrFromAddrPort(mustAddrPort(t, f.Default))
			}
		}
		t.Fatalf("no flag %s", name)
		return nil
	}
	var out strings.Builder
	printAddress(&out, ofFlag("listen"), listeners.DefaultConfig(), true)
	fmt.Fprintf(&out, "muxserve: admin pages on %s\n", shownAddress(ofFlag("admin"), listeners.ModeOff))
	shown := strings.ReplaceAll("\n"+readPage(t, "../../README.md"), "\n    ", "\n")
	if !strings.Contains(shown, out.String()) {
		t.Errorf("README.md does not show:\n%s", out.String())
	}
}
