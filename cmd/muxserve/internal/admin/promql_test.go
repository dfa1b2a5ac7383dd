package admin

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// catalogue has the labels of each series by its name, and the values of each label.
type catalogue map[string]map[string][]string

// targetLabels are the labels that Prometheus adds.
var targetLabels = []string{"job", "instance"}

// newCatalogue gathers the series of g, and adds up, which Prometheus makes.
func newCatalogue(t *testing.T, g prometheus.Gatherer) catalogue {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	c := catalogue{"up": {}}
	for _, f := range families {
		labels := make(map[string][]string)
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = append(labels[l.GetName()], l.GetValue())
			}
		}
		name := f.GetName()
		switch f.GetType().String() {
		case "HISTOGRAM":
			c[name+"_bucket"] = maps.Clone(labels)
			c[name+"_bucket"]["le"] = nil
			c[name+"_sum"], c[name+"_count"] = labels, labels
		case "SUMMARY":
			c[name+"_sum"], c[name+"_count"] = labels, labels
			c[name] = maps.Clone(labels)
			c[name]["quantile"] = nil
		default:
			c[name] = labels
		}
	}
	return c
}

// The parts of an expression that these tests recognise. They are not a parser: each is
// removed from the text before the next is searched.
var (
	selectorPart = regexp.MustCompile(`([a-zA-Z_:][\w:]*)?\s*\{([^}]*)\}`)
	matcherPart  = regexp.MustCompile(`^\s*(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*$`)
	rangePart    = regexp.MustCompile(`\[[^\]]*\]`)
	groupPart    = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	wordPart     = regexp.MustCompile(`(\d[\w.]*)|([a-zA-Z_:][\w:]*)(\s*\()?`)
	templatePart = regexp.MustCompile(`\{\{\s*(?:\$labels\.)?([a-zA-Z_]\w*)\s*\}\}`)
)

var (
	operators = []string{"and", "or", "unless", "by", "bool", "offset"}
	functions = []string{
		"and", "or", "unless", // They may stand before a bracket too.
		"changes", "count", "histogram_quantile", "increase", "max", "max_over_time", "min", "rate", "sum", "time", "vector",
	}
)

// check returns the faults of an expression, and of the label names in the texts beside
// its result.
func (c catalogue) check(expression string, texts ...string) error {
	var faults []error
	complain := func(format string, a ...any) { faults = append(faults, fmt.Errorf(format, a...)) }
	known := slices.Clone(targetLabels) // the labels of all metrics of the expression
	seen := func(name string) map[string][]string {
		labels, ok := c[name]
		if !ok {
			complain("no metric %q", name)
		}
		known = slices.AppendSeq(known, maps.Keys(labels))
		return labels
	}
	rest := selectorPart.ReplaceAllStringFunc(expression, func(selector string) string {
		parts := selectorPart.FindStringSubmatch(selector)
		labels := seen(parts[1])
		for text := range strings.SplitSeq(parts[2], ",") {
			if err := checkMatcher(text, labels); err != nil {
				complain("%s: %w", parts[1], err)
			}
		}
		return ""
	})
	rest = rangePart.ReplaceAllString(rest, "")
	var groups []string
	rest = groupPart.ReplaceAllStringFunc(rest, func(group string) string {
		groups = append(groups, strings.Split(groupPart.FindStringSubmatch(group)[1], ",")...)
		return ""
	})
	for _, word := range wordPart.FindAllStringSubmatch(rest, -1) {
		name, called := word[2], word[3] != ""
		switch {
		case name == "" || slices.Contains(operators, name):
		case called && !slices.Contains(functions, name):
			complain("no function %q", name)
		case !called:
			seen(name)
		}
	}
	for _, text := range texts {
		for _, template := range templatePart.FindAllStringSubmatch(text, -1) {
			groups = append(groups, template[1])
		}
	}
	for _, label := range groups {
		if label = strings.TrimSpace(label); label != "" && !slices.Contains(known, label) {
			complain("no label %q", label)
		}
	}
	return errors.Join(faults...)
}

// checkMatcher returns the fault of a matcher of a metric with these labels.
func checkMatcher(text string, labels map[string][]string) error {
	parts := matcherPart.FindStringSubmatch(text)
	if parts == nil {
		return fmt.Errorf("cannot read the matcher %q", text)
	}
	name, values := parts[1], strings.Split(parts[3], "|")
	if slices.Contains(targetLabels, name) {
		return nil
	}
	shown, ok := labels[name]
	if !ok {
		return fmt.Errorf("no label %q", name)
	}
	switch name {
	case "phase", "protocol", "status", "reason", "detail": // A server shows all of the values that there are.
	default:
		return nil
	}
	for _, value := range values {
		pattern := regexp.MustCompile("^(?:" + value + ")$")
		if !slices.ContainsFunc(shown, pattern.MatchString) {
			return fmt.Errorf("%s is never %q", name, value)
		}
	}
	return nil
}

// TestCatalogueFindsFaults tests the test.
func TestCatalogueFindsFaults(t *testing.T) {
	t.Parallel()
	c := catalogue{
		"up":                           {},
		"mux_phase":                    {"phase": {"serving", "draining"}},
		"mux_rejected_total":           {"reason": {"limit", "silent"}, "protocol": {"http1"}},
		"mux_duration_seconds_bucket":  {"le": nil, "protocol": {"http1"}},
		"mux_expiry_timestamp_seconds": {"address": {"127.0.0.1:1"}},
	}
	tests := []struct {
		expression string
		text       string
		want       string
	}{
		{`up{job="x"} == 0`, "{{instance}}", ""},
		{`sum by (phase) (mux_phase{job=~"$job",phase!="serving"}) > 0`, "{{phase}}", ""},
		{`sum by (phase)(mux_phase) and on (job, instance) (up offset 1h == 1)`, "", ""},
		{`histogram_quantile(0.95, sum by (le, protocol) (rate(mux_duration_seconds_bucket[$__rate_interval])))`, "", ""},
		{`mux_expiry_timestamp_seconds - time() < 14 * 86400`, "on {{ $labels.address }} in {{ $value | humanizeDuration }}", ""},
		{`rate(mux_rejected_total{reason=~"limit|silent"}[5m]) / 1e3`, "", ""},

		{`mux_phases`, "", `no metric "mux_phases"`},
		{`mx_phase{phase="serving"}`, "", "no metric \"mx_phase\"\nmx_phase: no label \"phase\""},
		{`rate(mux_duration_seconds[5m])`, "", `no metric "mux_duration_seconds"`},
		{`mux_phase{state="serving"}`, "", `mux_phase: no label "state"`},
		{`mux_phase{phase="srving"}`, "", `mux_phase: phase is never "srving"`},
		{`mux_rejected_total{reason=~"limit|limits"}`, "", `mux_rejected_total: reason is never "limits"`},
		{`mux_phase{phase}`, "", `mux_phase: cannot read the matcher "phase"`},
		{`{phase="serving"}`, "", "no metric \"\"\n: no label \"phase\""},
		{`sum by (protokol) (mux_rejected_total)`, "", `no label "protokol"`},
		{`mux_rejected_total`, "{{protocols}}", `no label "protocols"`},
		{`rat(mux_rejected_total[5m])`, "", `no function "rat"`},
	}
	for _, tt := range tests {
		got := ""
		if err := c.check(tt.expression, tt.text); err != nil {
			got = err.Error()
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.expression, diff)
		}
	}
}
