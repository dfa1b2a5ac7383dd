package admin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// grafana is the directory of the dashboard and the rules.
const grafana = "../../grafana"

// dashboard is the part of a Grafana dashboard that these tests check.
type dashboard struct {
	SchemaVersion int
	Templating    struct {
		List []struct {
			Name, Type, Definition string
		}
	}
	Panels []panel
}

type panel struct {
	ID          int
	Type, Title string
	GridPos     struct{ H, W, X, Y int }
	Datasource  datasource
	Targets     []struct {
		Expr, LegendFormat string
		Datasource         datasource
	}
}

type datasource struct{ UID string }

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(grafana, "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDashboardMetrics: every expression uses metrics, labels and values of muxserve, and
// selects the chosen job and instance.
func TestDashboardMetrics(t *testing.T) {
	t.Parallel()
	c := newCatalogue(t, servedRegistry(t))
	d := readDashboard(t)
	checked := 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			checked++
			if err := c.check(target.Expr, target.LegendFormat); err != nil {
				t.Errorf("panel %q: %s:\n%v", p.Title, target.Expr, err)
			}
			for _, selector := range selectorPart.FindAllString(target.Expr, -1) {
				if !strings.Contains(selector, `{job=~"$job",instance=~"$instance"`) {
					t.Errorf("panel %q: %s does not select job and instance", p.Title, selector)
				}
			}
		}
	}
	if checked == 0 {
		t.Error("no expression was found")
	}
	variable := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		parts := variable.FindStringSubmatch(v.Definition)
		if parts == nil {
			t.Errorf("variable %s: cannot read %q", v.Name, v.Definition)
		} else if err := c.check(parts[1], "{{"+parts[2]+"}}"); err != nil {
			t.Errorf("variable %s: %v", v.Name, err)
		}
	}
}

// TestDashboardLayout: panels have different titles, do not overlap, and use the chosen
// data source.
func TestDashboardLayout(t *testing.T) {
	t.Parallel()
	const columns = 24
	d := readDashboard(t)
	if d.SchemaVersion < 39 { // That of Grafana 11.0.
		t.Errorf("schema version %d", d.SchemaVersion)
	}
	ids := make(map[int]string)
	places := make(map[[2]int]string)
	for _, p := range d.Panels {
		if other, taken := ids[p.ID]; taken || p.ID == 0 || p.Title == "" {
			t.Errorf("panel %q has id %d, as %q", p.Title, p.ID, other)
		}
		ids[p.ID] = p.Title
		if p.GridPos.X+p.GridPos.W > columns {
			t.Errorf("panel %q is too far on the right", p.Title)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				place := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other, taken := places[place]; taken {
					t.Fatalf("panel %q lies over %q", p.Title, other)
				}
				places[place] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		sources := []datasource{p.Datasource}
		for _, target := range p.Targets {
			sources = append(sources, target.Datasource)
		}
		for _, source := range sources {
			if source.UID != "${datasource}" {
				t.Errorf("panel %q asks %q", p.Title, source.UID)
			}
		}
	}
}

// rules is a file of Prometheus rules. Other keys are errors.
type rules struct {
	Groups []struct {
		Name  string
		Rules []rule
	}
}

type rule struct {
	Alert, Expr, For string
	Labels           struct{ Severity string }
	Annotations      struct {
		Summary, Description string
		Runbook              string `yaml:"runbook_url"`
	}
}

// TestAlerts: every rule uses metrics of muxserve, and describes the alert.
func TestAlerts(t *testing.T) {
	t.Parallel()
	file, err := os.Open(filepath.Join(grafana, "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	decoder := yaml.NewDecoder(file)
	decoder.KnownFields(true)
	var all rules
	if err := decoder.Decode(&all); err != nil {
		t.Fatal(err)
	}
	c := newCatalogue(t, servedRegistry(t))
	names := make(map[string]bool)
	for _, group := range all.Groups {
		for _, r := range group.Rules {
			if names[r.Alert] || r.Alert == "" {
				t.Errorf("two alerts are called %q", r.Alert)
			}
			names[r.Alert] = true
			if err := c.check(r.Expr, r.Annotations.Summary, r.Annotations.Description); err != nil {
				t.Errorf("%s: %s:\n%v", r.Alert, r.Expr, err)
			}
			if s := r.Labels.Severity; s != "warning" && s != "critical" {
				t.Errorf("%s has severity %q", r.Alert, s)
			}
			if want := runbookURL + strings.ToLower(r.Alert); r.Annotations.Runbook != want {
				t.Errorf("%s links %q, want %q", r.Alert, r.Annotations.Runbook, want)
			}
			if r.Annotations.Summary == "" || r.Annotations.Description == "" {
				t.Errorf("%s does not explain itself", r.Alert)
			}
		}
	}
	if len(names) == 0 {
		t.Error("there is no alert")
	}
	checkRunbook(t, c, names)
}

// runbookURL is where the runbook's sections are found.
const runbookURL = "https://github.com/muxserve/muxserve/blob/main/cmd/muxserve/RUNBOOK.md#"

// checkRunbook checks that the runbook has a section with some text for each alert and for
// nothing else, and names no metric and no alert that there is not.
func checkRunbook(t *testing.T, c catalogue, alerts map[string]bool) {
	t.Helper()
	const short = 150 // of a section: too little to help anybody
	text, err := os.ReadFile("../../RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	written := make(map[string]bool)
	for i, section := range strings.Split(string(text), "\n## ") {
		title, body, _ := strings.Cut(section, "\n")
		if i == 0 {
			continue // What stands above the first section.
		}
		if written[title] || !alerts[title] {
			t.Errorf("the runbook's section %q is not of one alert", title)
		}
		if written[title] = true; len(body) < short {
			t.Errorf("the runbook says too little about %s", title)
		}
	}
	for alert := range alerts {
		if !written[alert] {
			t.Errorf("the runbook has no section for %s", alert)
		}
	}
	for _, metric := range regexp.MustCompile(`\b(?:mux|process|go)_[a-z_]+`).FindAllString(string(text), -1) {
		if _, ok := c[metric]; !ok {
			t.Errorf("the runbook names the metric %s, which there is not", metric)
		}
	}
	for _, alert := range regexp.MustCompile(`\bMuxserve[A-Z]\w+`).FindAllString(string(text), -1) {
		if !alerts[alert] {
			t.Errorf("the runbook names the alert %s, which there is not", alert)
		}
	}
}
