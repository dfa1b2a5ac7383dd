package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// countingClient takes its time over each operation and counts them.
type countingClient struct {
	begun  []time.Time
	closed bool
}

func (c *countingClient) begin(_ context.Context, _ uint64, done func()) {
	c.begun = append(c.begun, time.Now())
	time.AfterFunc(operationTime, done)
}

func (c *countingClient) close() { c.closed = true }

// TestLoad: operations begin at their times although none of those before is over.
func TestLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 100
		often, rarely := new(countingClient), new(countingClient)
		started := time.Now()
		l := startLoad(t.Context(), rate, []share{{3, often}, {1, rarely}})
		time.Sleep(time.Second - time.Nanosecond)
		l.finish()
		if len(often.begun) != 3*rate/4 || len(rarely.begun) != rate/4 {
			t.Errorf("%d and %d operations, want %d and %d", len(often.begun), len(rarely.begun), 3*rate/4, rate/4)
		}
		if last := often.begun[len(often.begun)-1].Sub(started); last != 990*time.Millisecond {
			t.Errorf("the last one began after %v", last)
		}
		if !often.closed || !rarely.closed {
			t.Error("a client was not closed")
		}
	})
}

func TestWheel(t *testing.T) {
	a, b, c := new(countingClient), new(countingClient), new(countingClient)
	names := map[client]string{a: "a", b: "b", c: "c"}
	var got string
	for _, each := range wheel([]share{{4, a}, {2, b}, {1, c}}) {
		got += names[each]
	}
	if diff := cmp.Diff("abacaba", got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
