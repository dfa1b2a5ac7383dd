package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// The drain of many streams: clients have spreadMany to leave, and those that
// stay are cut after timeoutMany, which is after the last mute WebSocket has had its time.
const (
	delayMany   = time.Second
	spreadMany  = 5 * time.Second
	timeoutMany = delayMany + spreadMany + muteTime + 5*time.Second
)

const (
	// streamsPerConnection is how many share an HTTP/2 connection.
	streamsPerConnection = 5
	// overstays is the share of streams that never leave, and mutes the number of further WebSockets
	// that never answer their close frame. Those have their own time and are not forced.
	overstays = 0.01
	mutes     = 20
	// slowShare is the share of WebSockets that are in a long message, and cutShare the part
	// of those that are so at the deadline.
	slowShare, cutShare = 0.1, 0.02
	// webSocketShare and grpcShare are the shares of WebSockets and of streams over
	// grpc-go; the rest goes over net/http.
	webSocketShare, grpcShare = 0.34, 0.34
	// stretch is the time in which a herd would show, and herd how many times
	// the mean may reconnect in it.
	stretch, herd = 500 * time.Millisecond, 2
)

// manyConfig raises the limits of the pools, which are 1000 connections, and gives clients
// time: a busy machine may let seconds pass between their dial and their first byte.
const manyConfig = `sniff: {timeout: 30s}
http1: {max_connections: 10000}
http2: {max_connections: 10000}
grpc: {max_connections: 10000}
websocket: {max_connections: 10000, read_limit: 5000000}
`

// many lets a process with thousands of streams drain. Its clients go to a second
// one when they are told, but for a few, which stay until they are cut.
func many(ctx context.Context, o *options) error {
	config := filepath.Join(o.dir, "many.yaml")
	if err := os.WriteFile(config, []byte(manyConfig), 0o600); err != nil {
		return fmt.Errorf("restarts: %w", err)
	}
	var servers [2]*backend
	for i := range servers {
		b, err := newBackend(o.binary, o.dir, fmt.Sprintf("many%d", i), "--config="+config, "--drain-delay="+delayMany.String(),
			"--drain-spread="+spreadMany.String(), "--drain-timeout="+timeoutMany.String())
		if err != nil {
			return err
		}
		defer b.close()
		if err := b.start(ctx); err != nil {
			return err
		}
		servers[i] = b
	}
	m := &manyStreams{options: o, first: servers[0], second: servers[1]}
	return m.run(ctx)
}

// manyStreams is the state of the scenario.
type manyStreams struct {
	*options

	first, second *backend
	leaving       atomic.Bool // new connections go to second
	reconnects    departures
	overstayers   []*overstayer
}

// address is where clients connect to at the moment.
func (m *manyStreams) address() string {
	if !m.leaving.Load() {
		return m.first.service.String()
	}
	m.reconnects.add(time.Now())
	return m.second.service.String()
}

func (m *manyStreams) run(ctx context.Context) (err error) {
	stay := int(overstays * float64(m.streams))
	slow := int(slowShare * float64(m.streams))
	cut := int(cutShare * float64(slow))
	clients, rows := m.clients(ctx, m.streams-stay-slow)
	if m.overstayers, err = newOverstayers(ctx, stay, m.address); err != nil {
		return err
	}
	defer func() {
		for _, o := range m.overstayers {
			o.close()
		}
	}()
	quiet, err := newMutes(ctx, mutes, m.first.service.String())
	if err != nil {
		return err
	}
	defer func() {
		for _, q := range quiet {
			_ = q.conn.Close()
		}
	}()
	readers, err := newSlows(ctx, slow, cut, m.first.service.String())
	if err != nil {
		return err
	}
	defer readers.close()
	moving, err := newMovers(ctx, m.duplex, m.first.service.String)
	if err != nil {
		return err
	}
	open(ctx, clients)
	l := startLoad(ctx, m.rate, clients)
	m.leaving.Store(true)
	deadline := time.Now().Add(timeoutMany)
	readers.begin()
	moved := make(chan error, 1)
	time.AfterFunc(duplexTime, func() { moved <- moving.end(m.out) })
	began := time.Now()
	code, err := m.first.drain(ctx)
	if err != nil {
		return err
	}
	faults := []error{<-moved}
	for _, o := range m.overstayers {
		faults = append(faults, o.verdict(deadline))
	}
	for _, q := range quiet {
		faults = append(faults, q.verdict(began))
	}
	faults = append(faults, readers.verdict(deadline))
	l.finish()
	fmt.Fprintf(m.out, "%d WebSockets in messages to slow readers, %d of which were so at the deadline\n", slow, cut)
	faults = append(faults, rows.write(m.out, "streams"), m.checkForced(code, stay, cut), m.checkTold(rows, m.streams-stay-slow), m.checkHerd())
	if code, err = m.second.drain(ctx); err == nil && code != 0 {
		err = fmt.Errorf("the second server: exit code %d", code)
	}
	faults = append(faults, err)
	return errors.Join(faults...)
}

// clients returns n clients, each with one stream.
func (m *manyStreams) clients(ctx context.Context, n int) ([]share, tallies) {
	sockets, calls := int(webSocketShare*float64(n)), int(grpcShare*float64(n))
	rows := tallies{{kind: "websocket"}, {kind: "grpc streams"}, {kind: "h2 streams"}}
	w := &webSockets{t: rows[0], address: m.address}
	return []share{
		{sockets, newMessages(ctx, rows[0], sockets, w.open, nil)},
		{calls, newStreams(ctx, rows[1], calls, streamsPerConnection, m.address, connectGRPC)},
		{n - sockets - calls, newStreams(ctx, rows[2], n-sockets-calls, streamsPerConnection, m.address, connectHTTP)},
	}, rows
}

// open returns when every client has had an answer, so that its stream is open.
func open(ctx context.Context, clients []share) {
	var wg sync.WaitGroup
	n := ^uint64(0) // Numbers that the load never comes to.
	for _, c := range clients {
		for range c.weight {
			wg.Add(1)
			c.client.begin(ctx, n, wg.Done)
			n--
		}
	}
	wg.Wait()
}

// exitCut is muxserve's exit code when its drain had to cut connections.
const exitCut = 3

// checkForced wants exactly those cut and counted that overstayed, and the WebSockets that
// were in a message.
func (m *manyStreams) checkForced(code, stay, sockets int) error {
	forced, err := forcedInLog(m.first.log.Name())
	if err != nil {
		return err
	}
	got, want := 0, stay+sockets
	for _, n := range forced {
		got += n
	}
	fmt.Fprintf(m.out, "%d of %d streams overstayed; exit code %d; forced by protocol: %v\n", stay, m.streams, code, forced)
	if got != want || forced["websocket"] != sockets || code != exitCut {
		return fmt.Errorf("%d connections were counted as forced and the exit code is %d; want %d and %d", got, code, want, exitCut)
	}
	return nil
}

// forcedInLog returns what the last line of the drain says was cut.
func forcedInLog(file string) (map[string]int, error) {
	log, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("restarts: %w", err)
	}
	defer log.Close()
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var line struct {
			Msg    string         `json:"msg"`
			Forced map[string]int `json:"forced"`
		}
		// The log holds what muxserve prints at its start too, which is not JSON.
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "drain ended" {
			return line.Forced, nil
		}
	}
	return nil, fmt.Errorf("restarts: %s does not say how the drain ended", file)
}

// checkTold wants every stream told, once.
func (m *manyStreams) checkTold(rows tallies, want int) error {
	all := rows.total()
	if told := all.goAway.Load() + all.goingAway.Load(); told != int64(want) {
		return fmt.Errorf("%d of %d streams were told to leave", told, want)
	}
	return nil
}

// checkHerd wants the reconnects spread.
func (m *manyStreams) checkHerd() error {
	n, most := m.reconnects.count(), m.reconnects.busiest(stretch)
	mean := float64(n) * float64(stretch) / float64(spreadMany)
	fmt.Fprintf(m.out, "%d reconnects in %v; mean %.0f in %v over the spread of %v, busiest %d\n",
		n, m.reconnects.period().Round(stretch), mean, stretch, spreadMany, most)
	if float64(most) > herd*mean {
		return fmt.Errorf("%d reconnects in the busiest %v; want at most %.0f", most, stretch, herd*mean)
	}
	return nil
}
