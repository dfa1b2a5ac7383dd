package main

import (
	"errors"
	"testing"

	"github.com/muxserve/muxserve/testdata/clients/record"
)

func TestResultOK(t *testing.T) {
	one := record.Counts{HTTP2: true, Requests: 1, ClientSettings: 1, Settings: 1, Acks: 1}
	with := func(edit func(*record.Counts)) result {
		c := one
		edit(&c)
		return result{sent: 1, answered: 1, seen: []record.Counts{one, c}}
	}
	tests := []struct {
		name   string
		result result
		want   bool
	}{
		{"all answered", result{sent: 1, answered: 1}, true},
		{"one lost", result{sent: 2, answered: 1}, false},
		{"an error", result{err: errors.New("no route")}, false},
		{"one of each", with(func(*record.Counts) {}), true},
		{"no SETTINGS", with(func(c *record.Counts) { c.Settings = 0 }), false},
		{"SETTINGS twice", with(func(c *record.Counts) { c.Settings = 2 }), true},
		{"SETTINGS twice for an eager client", with(func(c *record.Counts) { c.Settings, c.Eager = 2, true }), false},
		{"SETTINGS three times", with(func(c *record.Counts) { c.Settings = 3 }), false},
		{"no ACK", with(func(c *record.Counts) { c.Acks = 0 }), false},
		{"an ACK too many", with(func(c *record.Counts) { c.Acks = 2 }), false},
		{"a client with two SETTINGS", with(func(c *record.Counts) { c.ClientSettings, c.Acks = 2, 2 }), true},
		{"GOAWAY with an error", with(func(c *record.Counts) { c.GoAwayErrors = 1 }), false},
		{"HTTP/1.1", result{sent: 1, answered: 1, seen: []record.Counts{{}}}, true},
	}
	for _, tt := range tests {
		if got := tt.result.ok(); got != tt.want {
			t.Errorf("%s: ok is %v with %q", tt.name, got, tt.result.faults())
		}
	}
}
