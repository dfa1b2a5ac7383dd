package lifecycle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

// TestLog checks the lines of a drain, one for each step and each phase.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newPlay(t)
		p.left = map[string]int{"http1": 2, "grpc": 1}
		p.cut = map[string]int{"http1": 2}
		p.does[StepAnnounce] = func(context.Context) error { return errors.New("boom") }
		cfg := config(func(c *Config) { c.SkipSteps = []string{StepStopAccepting} })
		m := New(cfg, p.actions(), slog.New(slog.NewJSONHandler(&out, nil)))
		m.SetServing()
		report, _ := m.Drain(t.Context())

		var got []map[string]any
		for dec := json.NewDecoder(&out); dec.More(); {
			var line map[string]any
			if err := dec.Decode(&line); err != nil {
				t.Fatal(err)
			}
			wantLevel := "INFO"
			if line["msg"] == "drain ended" { // It has cut connections.
				wantLevel = "WARN"
			}
			if level := line["level"]; level != wantLevel {
				t.Errorf("level of %v is %v, want %s", line["msg"], level, wantLevel)
			}
			delete(line, "time")
			delete(line, "level")
			got = append(got, line)
		}
		left := map[string]any{"http1": 2.0, "grpc": 1.0}
		step := func(name, status string, duration float64) map[string]any {
			return map[string]any{
				"msg": "drain step", keyTraceID: report.TraceID, keyPhase: "draining",
				keyStep: name, keyStatus: status, keyDuration: duration, keyRemaining: left,
			}
		}
		failed := step(StepAnnounce, "failed", 0)
		failed[keyErr] = "lifecycle: announce: boom"
		want := []map[string]any{
			{"msg": "phase change", keyPhase: "serving"},
			{"msg": "phase change", keyPhase: "draining", keyTraceID: report.TraceID},
			failed,
			step(StepDrainDelay, "done", 5),
			step(StepStopAccepting, "skipped", 0),
			step(StepWaitConnections, "done", 0),
			step(StepForceClose, "done", 0),
			step(StepCleanup, "done", 0),
			{
				"msg": "drain ended", keyTraceID: report.TraceID, keyDuration: 5.0,
				keyForced: map[string]any{"http1": 2.0},
			},
			{"msg": "phase change", keyPhase: "stopped", keyTraceID: report.TraceID},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("log (-want +got):\n%s", diff)
		}
	})
}

// TestLevelOfDrainEnded: a drain that cuts nothing ends at Info.
func TestLevelOfDrainEnded(t *testing.T) {
	for level, cut := range map[string]map[string]int{"INFO": nil, "WARN": {"http1": 1}} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			p := newPlay(t)
			p.cut = cut
			m := New(config(func(*Config) {}), p.actions(), slog.New(slog.NewTextHandler(&out, nil)))
			_, _ = m.Drain(t.Context())
			if want := "level=" + level + " msg=\"drain ended\""; !strings.Contains(out.String(), want) {
				t.Errorf("%s is missing in\n%s", want, &out)
			}
		})
	}
}
