package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/humanlog"
	"github.com/muxserve/muxserve/mux"
)

// The functions of this file print answers of the admin listener for people.

// table prints rows in columns. A peer may have chosen a text: the name of its own socket,
// say. So no cell gets to the terminal as more than text.
func table(w io.Writer, rows [][]string) error {
	const padding = 2
	out := tabwriter.NewWriter(w, 0, 0, padding, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = humanlog.Printable(cell)
		}
		fmt.Fprintln(out, strings.Join(cells, "\t"))
	}
	return out.Flush()
}

// age returns the time since then, to the second.
func age(then time.Time) string { return time.Since(then).Round(time.Second).String() }

// ofLimit compares a number with its limit.
func ofLimit(n int64, limit int) string {
	if limit == 0 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d of %d", n, limit)
}

func showStatus(w io.Writer, answer []byte) error {
	type usage struct {
		Status string `json:"status"`
		Limit  int    `json:"limit"`
	}
	var health struct {
		Phase       string  `json:"phase"`
		Status      string  `json:"status"`
		Uptime      float64 `json:"uptime_seconds"`
		Connections int64   `json:"connections"`
		Total       usage   `json:"total"`
		Protocols   map[string]struct {
			usage

			Active    int64   `json:"active"`
			InFlight  int64   `json:"in_flight"`
			ErrorRate float64 `json:"error_rate"`
			P99       float64 `json:"p99_seconds"`
		} `json:"protocols"`
	}
	if err := json.Unmarshal(answer, &health); err != nil {
		return err
	}
	fmt.Fprintf(w, "%s, %s; up %s; %s connections\n\n", health.Phase, health.Status,
		(time.Duration(health.Uptime) * time.Second).String(), ofLimit(health.Connections, health.Total.Limit))
	rows := [][]string{{"POOL", "HEALTH", "CONNECTIONS", "IN FLIGHT", "ERRORS", "P99"}}
	for _, name := range slices.Sorted(maps.Keys(health.Protocols)) {
		p := health.Protocols[name]
		rows = append(rows, []string{
			name, p.Status, ofLimit(p.Active, p.Limit), fmt.Sprint(p.InFlight), fmt.Sprintf("%.1f%%", 100*p.ErrorRate),
			time.Duration(p.P99 * float64(time.Second)).Round(time.Microsecond).String(),
		})
	}
	return table(w, rows)
}

func showConnections(w io.Writer, answer []byte) error {
	var list struct {
		Total       int            `json:"total"`
		Connections []mux.ConnInfo `json:"connections"`
	}
	if err := json.Unmarshal(answer, &list); err != nil {
		return err
	}
	rows := [][]string{{"ID", "PROTOCOL", "STATE", "PEER", "AGE", "RECEIVED", "SENT", "REQUESTS", "IN FLIGHT"}}
	for _, c := range list.Connections {
		rows = append(rows, []string{
			fmt.Sprint(c.ID), c.Protocol, c.State, cmp.Or(c.RemoteAddr, "-"), age(c.Opened),
			fmt.Sprint(c.BytesReceived), fmt.Sprint(c.BytesSent), fmt.Sprint(c.Requests), fmt.Sprint(c.InFlight),
		})
	}
	if err := table(w, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d of %d\n", len(list.Connections), list.Total)
	return err
}

func showClosed(w io.Writer, answer []byte) error {
	var list struct {
		Closed []mux.ClosedConn `json:"closed"`
	}
	if err := json.Unmarshal(answer, &list); err != nil {
		return err
	}
	rows := [][]string{{"AGO", "OUTCOME", "REASON", "PROTOCOL", "PEER", "OPEN FOR", "REQUESTS", "DETAIL"}}
	for _, c := range list.Closed {
		rows = append(rows, []string{
			age(c.Closed), string(c.Outcome), c.Reason, c.Protocol, cmp.Or(c.RemoteAddr, "-"),
			c.Closed.Sub(c.Opened).Round(time.Millisecond).String(), fmt.Sprint(c.Requests), c.Detail,
		})
	}
	return table(w, rows)
}

func showVersion(w io.Writer, answer []byte) error {
	var v mux.Version
	if err := json.Unmarshal(answer, &v); err != nil {
		return err
	}
	if len(v.Changes) == 0 {
		_, err := fmt.Fprintf(w, "nothing has changed; version %d is in force\n", v.Number)
		return err
	}
	fmt.Fprintf(w, "version %d is in force\n", v.Number)
	for _, c := range v.Changes {
		fmt.Fprintf(w, "  %s: %s -> %s (%s)\n", c.Path, cmp.Or(c.Old, "nothing"), cmp.Or(c.New, "nothing"), c.How)
	}
	return nil
}

// showText prints a text whatever the answer is.
func showText(text string) func(io.Writer, []byte) error {
	return func(w io.Writer, _ []byte) error {
		_, err := fmt.Fprintln(w, text)
		return err
	}
}

func showReady(w io.Writer, answer []byte) error {
	var said struct {
		Ready  bool   `json:"ready"`
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(answer, &said); err != nil {
		return err
	}
	text := "ready"
	if !said.Ready {
		text = "not ready: " + said.Reason
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

func showLevel(w io.Writer, answer []byte) error {
	var said struct {
		Level string `json:"level"`
	}
	if err := json.Unmarshal(answer, &said); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "the log level is %s until the next reload\n", said.Level)
	return err
}

func showDisconnected(w io.Writer, answer []byte) error {
	var said struct {
		Closed   int     `json:"closed"`
		Patience float64 `json:"patience_seconds"`
	}
	if err := json.Unmarshal(answer, &said); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "connections told to leave: %d; they are cut after %v s\n", said.Closed, said.Patience)
	return err
}
