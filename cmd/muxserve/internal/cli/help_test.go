package cli

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var serveFlags = []Flag{
	{Name: "listen", Group: "Listening", Value: "ADDR", Help: "where to listen", Default: ":80", Env: "P_LISTEN"},
	{Name: "tls", Group: "TLS", Value: "MODE", Help: "don't, or [do]: off or on", Choices: []string{"off", "on"}},
	{Name: "tls-cert", Group: "TLS", Value: "PEM", Help: ".pem, a \\ file", Files: AnyFile},
	{Name: "static", Group: "Serving", Value: "DIR", Help: strings.Repeat("word ", 20) + "end", Files: Directory},
	{Name: "watch", Group: "Serving", Help: "look again"},
}

var testProgram = Program{
	Name: "prog", Summary: "prog serves.", Default: "serve",
	Commands: []Command{
		{Name: "serve", Usage: "[flags]", Help: "serve (the default)", Flags: serveFlags},
		{Name: "check", Usage: "[flags]", Help: "look, and don't serve", Flags: serveFlags},
		{Name: "probe", Usage: "[flags] ADDR", Help: "ask", Flags: []Flag{{Name: "grpc", Help: "by gRPC"}}},
		{Name: "completion", Usage: "SHELL", Help: "complete", Args: Shells()},
	},
	Notes:    []string{"A note."},
	Sections: []Section{{Title: "Exit status", Paragraphs: []string{"0 is good.", ".5 isn't."}}},
}

func TestWriteHelp(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := testProgram.WriteHelp(&out); err != nil {
		t.Fatal(err)
	}
	want := `prog serves.

  prog serve [flags]        serve (the default)
  prog check [flags]        look, and don't serve
  prog probe [flags] ADDR   ask
  prog completion SHELL     complete

  Listening  --listen ADDR
  TLS        --tls MODE  --tls-cert PEM
  Serving    --static DIR  --watch

A note.
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWriteFlags(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := WriteFlags(&out, serveFlags); err != nil {
		t.Fatal(err)
	}
	want := `Listening
  --listen ADDR
        where to listen (default :80) [P_LISTEN]

TLS
  --tls MODE
        don't, or [do]: off or on
  --tls-cert PEM
        .pem, a \ file

Serving
  --static DIR
        word word word word word word word word word word word word word word
        word word word word word word end
  --watch
        look again
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWriteMan(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := testProgram.WriteMan(&out); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	for _, want := range []string{
		".TH PROG 1 \"\" prog \"User Commands\"\n.SH NAME\nprog \\- serves\n.SH SYNOPSIS\n\\fBprog\\fR [serve] [flags]\n.br\n\\fBprog\\fR check [flags]\n",
		"\n.SH OPTIONS\n.SS Listening\n.TP\n\\fB\\-\\-listen\\fR \\fIADDR\\fR\nwhere to listen (default :80) [P_LISTEN]\n",
		"\n\\fB\\-\\-tls\\-cert\\fR \\fIPEM\\fR\n\\&.pem, a \\e file\n",
		"\n.SH OPTIONS OF PROBE\n.TP\n\\fB\\-\\-grpc\\fR\nby gRPC\n",
		"\n.SH EXIT STATUS\n0 is good.\n.PP\n\\&.5 isn\\(aqt.\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "OPTIONS OF CHECK") {
		t.Error("the options of check are those of serve, and explained twice")
	}
}

// TestManIsRoff checks the page with groff, where it is installed.
func TestManIsRoff(t *testing.T) {
	t.Parallel()
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("there is no groff, which .ci/run installs")
	}
	var page, warnings strings.Builder
	if err := testProgram.WriteMan(&page); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), groff, "-man", "-Tascii", "-ww", "-z")
	cmd.Stdin, cmd.Stderr = strings.NewReader(page.String()), &warnings
	if err := cmd.Run(); err != nil || warnings.Len() > 0 {
		t.Errorf("%v\n%s", err, &warnings)
	}
}

// completed returns the completions of bash for the last word of a line.
func completed(t *testing.T, bash, line string) []string {
	t.Helper()
	var script strings.Builder
	if err := testProgram.WriteCompletion(&script, "bash"); err != nil {
		t.Fatal(err)
	}
	// compopt only works during a completion by bash.
	script.WriteString("\ncompopt() { :; }\nread -ra COMP_WORDS <<<\"$1\"\n" +
		"[[ $1 == *\" \" ]] && COMP_WORDS+=(\"\")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_prog\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n")
	out, err := exec.CommandContext(t.Context(), bash, "-c", script.String(), "bash", line).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.Fields(string(out))
}

func TestBashCompletion(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash, in which .ci/run is written")
	}
	flags := []string{"--listen", "--tls", "--tls-cert", "--static", "--watch", "--help"}
	tests := map[string][]string{
		"prog ":                  append([]string{"serve", "check", "probe", "completion"}, flags...),
		"prog c":                 {"check", "completion"},
		"prog check --t":         {"--tls", "--tls-cert"},
		"prog --listen :80 --w":  {"--watch"},
		"prog serve --listen ":   nil,
		"prog serve --tls ":      {"off", "on"},
		"prog serve --tls = ":    {"off", "on"},
		"prog serve --tls = of":  {"off"},
		"prog probe --":          {"--grpc", "--help"},
		"prog completion ":       {"bash", "zsh", "fish", "--help"},
		"prog --tls-cert cli.g":  {"cli.go"},
		"prog --static ./nosuch": nil,
	}
	for line, want := range tests {
		if diff := cmp.Diff(want, completed(t, bash, line), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", line, diff)
		}
	}
}

// TestCompletionIsAScript checks each script with its shell, where it is installed.
func TestCompletionIsAScript(t *testing.T) {
	t.Parallel()
	for _, shell := range Shells() {
		var script strings.Builder
		if err := testProgram.WriteCompletion(&script, shell); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"tls-cert", "check", "off on", "prog"} {
			if !strings.Contains(script.String(), want) {
				t.Errorf("%s: %q is missing in:\n%s", shell, want, &script)
			}
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		cmd := exec.CommandContext(t.Context(), path, "-n")
		cmd.Stdin = strings.NewReader(script.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s\n%s", shell, err, out, &script)
		}
	}
	if err := testProgram.WriteCompletion(&strings.Builder{}, "csh"); err == nil || err.Error() != `"csh" is not one of bash, zsh, fish` {
		t.Errorf("error %v", err)
	}
}

func TestFishCompletion(t *testing.T) {
	t.Parallel()
	fish, err := exec.LookPath("fish")
	if err != nil {
		t.Skip("there is no fish, which .ci/run installs")
	}
	var script strings.Builder
	if err := testProgram.WriteCompletion(&script, "fish"); err != nil {
		t.Fatal(err)
	}
	tests := map[string][]string{
		"prog c":              {"check", "completion"},
		"prog check --tls-":   {"--tls-cert"},
		"prog --tl":           {"--tls", "--tls-cert"},
		"prog check --tls o":  {"off", "on"},
		"prog completion ":    {"bash", "zsh", "fish"},
		"prog probe --":       {"--grpc"},
		"prog serve --static": {"--static"},
	}
	for line, want := range tests {
		cmd := exec.CommandContext(t.Context(), fish, "--no-config", "-c", script.String()+"\ncomplete -C $argv[1]", line)
		cmd.Env = []string{"HOME=" + t.TempDir()}
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		var got []string
		for offer := range strings.Lines(string(out)) {
			word, _, _ := strings.Cut(strings.TrimSpace(offer), "\t")
			got = append(got, word)
		}
		if diff := cmp.Diff(want, got, cmpopts.SortSlices(strings.Compare)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", line, diff)
		}
	}
}
