package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

var testFlags = []Flag{
	{Name: "listen", Value: "ADDR", Help: "where to listen", Default: "127.0.0.1:8080"},
	{Name: "ws-read-limit", Value: "BYTES", Help: "largest message"},
	{Name: "tls", Help: "speak TLS"},
}

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		args    []string
		want    Parsed
		wantErr string
	}{
		{"nothing", nil, Parsed{}, ""},
		{"value apart", []string{"--listen", ":80"}, Parsed{Values: map[string][]string{"listen": {":80"}}}, ""},
		{"value attached", []string{"--listen=:80"}, Parsed{Values: map[string][]string{"listen": {":80"}}}, ""},
		{"value with an equals sign", []string{"--listen=a=b"}, Parsed{Values: map[string][]string{"listen": {"a=b"}}}, ""},
		{"empty value", []string{"--listen="}, Parsed{Values: map[string][]string{"listen": {""}}}, ""},
		{"repeated", []string{"--listen", "a", "--listen=b"}, Parsed{Values: map[string][]string{"listen": {"a", "b"}}}, ""},
		{"negative number", []string{"--ws-read-limit", "-1"}, Parsed{Values: map[string][]string{"ws-read-limit": {"-1"}}}, ""},
		{"PEM", []string{"--listen", "-----BEGIN"}, Parsed{Values: map[string][]string{"listen": {"-----BEGIN"}}}, ""},
		{"switch", []string{"--tls", "x"}, Parsed{Values: map[string][]string{"tls": {"true"}}, Args: []string{"x"}}, ""},
		{"switch off", []string{"--tls=false"}, Parsed{Values: map[string][]string{"tls": {"false"}}}, ""},
		{"end of flags", []string{"a", "--", "--listen", "-"}, Parsed{Args: []string{"a", "--listen", "-"}}, ""},
		{"help", []string{"--help", "--nonsense"}, Parsed{Help: true}, ""},
		{"short help", []string{"-h"}, Parsed{Help: true}, ""},
		{"value missing", []string{"--listen"}, Parsed{}, "--listen needs a value: --listen ADDR"},
		{"flag in the place of the value", []string{"--listen", "--tls"}, Parsed{}, "--listen needs a value: --listen ADDR"},
		{"switch with a wrong value", []string{"--tls=maybe"}, Parsed{}, `--tls: "maybe" is not true or false`},
		{"misspelt", []string{"--listne=x"}, Parsed{}, "unknown flag --listne; did you mean --listen?"},
		{"one dash", []string{"-listen", "x"}, Parsed{}, "unknown flag -listen; did you mean --listen?"},
		{"unknown", []string{"--frobnicate"}, Parsed{}, "unknown flag --frobnicate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Parse(testFlags, tt.args)
			if tt.wantErr != "" {
				if err == nil || err.Error() != tt.wantErr {
					t.Fatalf("error %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.want.Values == nil {
				tt.want.Values = map[string][]string{}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParsedLastAndOn(t *testing.T) {
	t.Parallel()
	p, err := Parse(testFlags, []string{"--listen=a", "--listen=b", "--tls", "--tls=false"})
	if err != nil {
		t.Fatal(err)
	}
	if value, given := p.Last("listen"); value != "b" || !given {
		t.Errorf("Last(listen) = %q, %v", value, given)
	}
	if value, given := p.Last("ws-read-limit"); value != "" || given {
		t.Errorf("Last(ws-read-limit) = %q, %v", value, given)
	}
	if p.On("tls") {
		t.Error("On(tls) after --tls=false")
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	candidates := []string{"serve", "check", "probe", "version"}
	tests := map[string]string{"server": "serve", "chekc": "check", "versoin": "version", "porbe": "probe", "xyz": "", "": ""}
	for word, want := range tests {
		if got := Nearest(word, candidates); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}
