package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/page"
	"github.com/muxserve/muxserve/mux"
)

const (
	defaultInterval = time.Second
	// minInterval keeps a stream that nobody bounds from filling the connection.
	minInterval = 10 * time.Millisecond
	// retryMillis is how long a browser waits before it opens an ended stream anew.
	retryMillis = 1000
)

// tick is the data of an event. It describes the connection of the stream.
type tick struct {
	Sequence uint64 `json:"sequence"`
	Proto    string `json:"proto"`
	Protocol string `json:"protocol"`
	ConnID   uint64 `json:"conn_id"`
}

// serveEvents sends an event a second, or in each ?interval=500ms, as server-sent events.
// It goes on where the client's Last-Event-ID stands. When the connection is to leave, the
// stream ends with an event of the type leave, so that the client opens it elsewhere.
func serveEvents(w http.ResponseWriter, r *http.Request) {
	interval, err := intervalOf(r)
	if err != nil {
		page.Error(w, http.StatusBadRequest, err)
		return
	}
	last, _ := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64) // 0 where it is none of ours.
	if !page.EventStream(w, r) {
		return
	}
	fmt.Fprintf(w, "retry: %d\n\n", retryMillis)

	ctx, cancel := untilLeave(r.Context())
	defer cancel()
	event := tick{Sequence: last, Proto: r.Proto}
	if c, ok := mux.ConnOf(ctx); ok {
		event.Protocol, event.ConnID = c.Protocol, c.ID
	}
	for {
		event.Sequence++
		data, _ := json.Marshal(event)
		fmt.Fprintf(w, "id: %d\ndata: %s\n\n", event.Sequence, data)
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		if sleep(ctx, interval) != nil {
			break
		}
	}
	if errors.Is(context.Cause(ctx), mux.ErrDraining) {
		fmt.Fprint(w, "event: leave\ndata: the connection is to leave\n\n")
	}
}

// intervalOf reads the parameter interval.
func intervalOf(r *http.Request) (time.Duration, error) {
	value := r.URL.Query().Get("interval")
	if value == "" {
		return defaultInterval, nil
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < minInterval || d > maxWait {
		return 0, fmt.Errorf("interval: %q is not a time from %v to %v, such as 500ms", value, minInterval, maxWait)
	}
	return d, nil
}
