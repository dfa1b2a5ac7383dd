package promrules

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// grafana is where the files are.
const grafana = "../../cmd/muxserve/grafana"

func newParser() parser.Parser { return parser.NewParser(parser.Options{}) }

// TestAlerts reads the rules as Prometheus does at its start, with the templates in their texts.
func TestAlerts(t *testing.T) {
	t.Parallel()
	groups, faults := rulefmt.ParseFile(filepath.Join(grafana, "alerts.yaml"), false, model.UTF8Validation,
		newParser(), slog.New(slog.DiscardHandler))
	for _, fault := range faults {
		t.Error(fault)
	}
	if groups == nil || len(groups.Groups) == 0 {
		t.Error("there is no rule")
	}
}

// variables are what Grafana puts in the place of its own before it asks. Those
// within quotes are text to the parser.
var variables = strings.NewReplacer("$__rate_interval", "1m")

func TestDashboard(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(grafana, "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	parsed := 0
	p := newParser()
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			parsed++
			if _, err := p.ParseExpr(variables.Replace(target.Expr)); err != nil {
				t.Errorf("panel %q: %s:\n%v", panel.Title, target.Expr, err)
			}
		}
	}
	if parsed == 0 {
		t.Error("there is no expression")
	}
}
