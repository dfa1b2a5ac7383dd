package settings

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	const secret = "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n"
	s, err := loadFrom(t, []string{"--listen", ":1", "--tls-cert", "c.pem", "--tls-key", secret, "--drain-delay", "1s"},
		map[string]string{"MUXSERVE_ADMIN_TOKEN": "MIGHTY"})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := s.Write(&out); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if strings.Contains(text, "PRIVATE KEY") || strings.Contains(text, "MIGH") {
		t.Fatalf("the key is shown:\n%s", text)
	}
	wantStart := `profile: ""  # default
listeners:
  - address: ":1"  # flag --listen
    tls:
      mode: auto  # default
      cert: c.pem  # flag --tls-cert
      key: "[inline PEM]"  # flag --tls-key
`
	if diff := cmp.Diff(wantStart, text[:min(len(text), len(wantStart))]); diff != "" {
		t.Errorf("start (-want +got):\n%s", diff)
	}
	for _, want := range []string{
		"\ndrain:\n  profile: \"\"  # default\n  delay: 1s  # flag --drain-delay\n  timeout: 30s  # default\n",
		"\n  skip_steps: []  # default\n  accept_during_delay: true  # default\n",
		"\nadmin:\n  address: 127.0.0.1:8081  # default\n  token: \"[redacted]\"  # environment MUXSERVE_ADMIN_TOKEN\n",
		"\nlog:\n  level: info  # default\n  format: auto  # default\n  access: false  # default\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}

// TestEveryOptionHasASetting fails after a key was renamed in a package's section.
func TestEveryOptionHasASetting(t *testing.T) {
	t.Parallel()
	for _, o := range options {
		if o.Name != configOption.Name && !slices.ContainsFunc(Keys(), func(k Key) bool { return k.Path == o.Key }) {
			t.Errorf("%s sets %s, which is not among the settings", o.flag(), o.Key)
		}
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"":               `""`,
		"off":            "off",
		"127.0.0.1:8080": "127.0.0.1:8080",
		"unix:/run/a b":  `"unix:/run/a b"`,
		":8080":          `":8080"`,
		"8080":           `"8080"`,
		"1.2":            `"1.2"`,
		"true":           `"true"`,
		"No":             `"No"`,
		"key:":           `"key:"`,
		"a\nb":           `"a\nb"`,
		"# comment":      `"# comment"`,
		"/srv/www":       "/srv/www",
		"self-signed":    "self-signed",
		"12:30":          `"12:30"`,
		"0x1f":           `"0x1f"`,
		"1.5e3":          `"1.5e3"`,
		"2001-01-01":     `"2001-01-01"`,
		".inf":           `".inf"`,
		"yes":            `"yes"`,
	}
	for in, want := range tests {
		if got := quote(in); got != want {
			t.Errorf("quote(%q) = %s, want %s", in, got, want)
		}
	}
}
