package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTallyOK(t *testing.T) {
	tests := []struct {
		name string
		edit func(*tally)
		want bool
	}{
		{"all answered", func(*tally) {}, true},
		{"one without an answer", func(t *tally) { t.sent.Add(1) }, false},
		{"few retries", func(t *tally) { t.retried.Add(10) }, true},
		{"many retries", func(t *tally) { t.retried.Add(11) }, false},
		{"told and resent", func(t *tally) { t.resent.Add(1); t.goAway.Add(1); t.goingAway.Add(1) }, true},
		{"failed", func(t *tally) { t.failed.Add(1) }, false},
		{"reset", func(t *tally) { t.broken.Add(1) }, false},
		{"lost", func(t *tally) { t.lost.Add(1) }, false},
		{"doubled", func(t *tally) { t.doubled.Add(1) }, false},
		{"untold", func(t *tally) { t.untold.Add(1) }, false},
		{"misled", func(t *tally) { t.misled.Add(1) }, false},
		{"in two steps", func(t *tally) { t.oneStep.Add(2); t.twoSteps.Add(1) }, true},
		{"grpc resent", func(t *tally) { t.resent.Add(1); t.goAway.Add(1) }, false},
	}
	for _, tt := range tests {
		row := &tally{kind: tt.name}
		row.sent.Add(10_000)
		row.answered.Add(10_000)
		tt.edit(row)
		if got := row.ok(); got != tt.want {
			t.Errorf("%s: ok is %v", tt.name, got)
		}
		if err := (tallies{row}).write(io.Discard, "test"); (err == nil) != tt.want {
			t.Errorf("%s: write returned %v", tt.name, err)
		}
	}
}

func TestWriteSteps(t *testing.T) {
	h2c, unary, websocket := &tally{kind: "h2c"}, &tally{kind: "grpc unary"}, &tally{kind: "websocket"}
	h2c.oneStep.Add(3)
	h2c.twoSteps.Add(2)
	unary.oneStep.Add(1)
	for _, tt := range []struct {
		rows tallies
		want string
	}{
		{tallies{h2c, unary, websocket}, "told in two steps, of the connections told by GOAWAY: h2c 2 of 3, grpc unary 0 of 1\n"},
		{tallies{websocket}, ""},
	} {
		var got strings.Builder
		tt.rows.writeSteps(&got)
		if diff := cmp.Diff(tt.want, got.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestToldOfAll(t *testing.T) {
	told, untold, http1 := &tally{kind: "h2c"}, &tally{kind: "websocket"}, &tally{kind: "http1 kept"}
	told.goAway.Add(1)
	if err := (tallies{told, http1}).toldOfAll(); err != nil {
		t.Error(err)
	}
	if (tallies{told, untold}).toldOfAll() == nil {
		t.Error("nobody missed the close code 1001")
	}
}

func TestBusiest(t *testing.T) {
	var d departures
	start := time.Now()
	for _, ms := range []int{950, 0, 90, 100, 189, 500, 501, 1000} {
		d.add(start.Add(time.Duration(ms) * time.Millisecond))
	}
	// From 90 on: 90, 100 and 189; 0 to 90 and 100 is a stretch of more than 99 ms.
	if got := d.busiest(100 * time.Millisecond); got != 3 {
		t.Errorf("busiest is %d, want 3", got)
	}
	if got := d.period(); got != time.Second {
		t.Errorf("period is %v", got)
	}
}
