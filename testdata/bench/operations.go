package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
)

// way is how the connections of an operation reach the server.
type way struct {
	secure    bool          // by TLS
	roundTrip time.Duration // of the link; 0 without one
	// client wraps the connections of the clients; nil for none.
	client func(net.Conn) net.Conn
}

// operation is a row of the tables. One of its functions is set besides its name.
type operation struct {
	name string
	// open prepares the operation on one form; it is then performed again and again.
	open func(context.Context, *process, sizes) (*session, error)
	// idle makes a connection whose memory is measured.
	idle idleOpener
	// drain are the kinds of connections that are drained.
	drain []idleOpener

	way way

	// without is a form that cannot do it: net/http's server behind cmux's recipe ends a connection on which the client
	// acknowledges cmux's SETTINGS as well.
	without string

	// alone is set where the connections of all forms together would be too many for
	// one process: they are opened for a slice and closed after it.
	alone bool
	// bulk is set where an operation takes so long that its latency says nothing new.
	bulk bool
}

func operations() []operation {
	var (
		idleHTTP2 = idleStream(portHTTP2, http2Small, false)
		idleGRPC  = idleStream(portGRPC, http2Call, true)
	)
	all := []operation{
		{name: "h1-keepalive", open: manyWorkers(http1Kept)},
		{name: "h1-newconn", open: manyWorkers(http1New)},
		{name: "h2c-streams", open: http2Streams},
		{name: "tls-newconn", open: manyWorkers(tlsNew(false))},
		{name: "tls-resumed", open: manyWorkers(tlsNew(true))},
		{name: "grpc-unary", open: grpcUnary},
		{name: "grpc-newconn", open: manyWorkers(grpcNew)},
		{name: "grpc-stream", open: grpcStream},
		{name: "ws-newconn", open: manyWorkers(webSocketNew)},
		{name: "ws-echo", open: manyWorkers(webSocketEcho)},
		{name: "ws-broadcast", open: oneWorker(broadcast), alone: true, bulk: true},
		{name: "download-100MB", open: oneWorker(download), bulk: true},
		{name: "upload-100MB", open: oneWorker(upload), bulk: true},
		{name: "h2c-upload", open: transfer(httpUpload((*http.Protocols).SetUnencryptedHTTP2, portHTTP2)), bulk: true, without: formCmux},
		{name: "idle-h1", idle: idleHTTP1},
		{name: "idle-h2c", idle: idleHTTP2},
		{name: "idle-grpc", idle: idleGRPC},
		{name: "idle-ws", idle: idleWebSocket},
		{name: "drain-10000", drain: []idleOpener{idleHTTP1, idleHTTP2, idleGRPC, idleWebSocket}},
	}
	return slices.Concat(all, secured(all), overLinks(transfers()))
}

// shortOperations are all operations, but of those over a link only the ones over the shortest.
func shortOperations() []operation {
	return slices.DeleteFunc(operations(), func(o operation) bool { return o.way.roundTrip > roundTrips()[0] })
}

// secured returns operations over TLS, but for those that are there already and for the drain.
func secured(plain []operation) []operation {
	var all []operation
	for _, o := range plain {
		if o.name == "h1-newconn" || strings.HasPrefix(o.name, "tls-") || o.drain != nil {
			continue
		}
		o.name, o.way.secure = "tls-"+strings.Replace(o.name, "h2c", "h2", 1), true
		all = append(all, o)
	}
	return all
}

// chooseOperations returns those whose names are in a list of patterns (see [path.Match]) that is separated by commas; all of
// them for the empty list.
func chooseOperations(list string) ([]operation, error) {
	return choose("-ops", list, operations(), func(o operation) string { return o.name })
}

// chooseForms is the same for forms, of which those that are not installed are left out of the empty list.
func chooseForms(list string) ([]form, error) {
	chosen, err := choose("-forms", list, forms(), func(f form) string { return f.name })
	if list == "" {
		chosen = slices.DeleteFunc(chosen, func(f form) bool { return !f.isInstalled() })
	}
	return chosen, err
}

func choose[T any](flag, list string, all []T, name func(T) string) ([]T, error) {
	if list == "" {
		return all, nil
	}
	var chosen []T
	for wanted := range strings.SplitSeq(list, ",") {
		before := len(chosen)
		for _, t := range all {
			if ok, err := path.Match(wanted, name(t)); ok && err == nil {
				chosen = append(chosen, t)
			}
		}
		if len(chosen) == before {
			return nil, fmt.Errorf("bench: %s: there is no %q", flag, wanted)
		}
	}
	return chosen, nil
}
