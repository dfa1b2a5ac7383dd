package main

import "context"

// The clients of the scenarios with a load of all kinds: how many of each there
// are, and their weight in the mix, of 20.
const (
	httpClients    = 10
	callClients    = 6
	streamClients  = 12
	webSocketCount = 20
	streamsPerLink = 2

	keepAliveWeight  = 5
	newEachWeight    = 2
	h2cWeight        = 4
	unaryWeight      = 3
	grpcStreamWeight = 2
	httpStreamWeight = 2
	webSocketWeight  = 2
)

// newClients returns clients of all kinds that connect to address, and the rows of their figures.
func newClients(ctx context.Context, address func() string) ([]share, tallies, error) {
	var rows tallies
	row := func(kind string) *tally {
		t := &tally{kind: kind}
		rows = append(rows, t)
		return t
	}
	shares := []share{
		{keepAliveWeight, newRequests(row("http1 kept"), keepAlive, httpClients, address)},
		{newEachWeight, newRequests(row("http1 new"), newEach, 1, address)},
		{h2cWeight, newRequests(row("h2c"), h2c, httpClients, address)},
	}
	unary, err := newCalls(row("grpc unary"), callClients, address)
	if err != nil {
		return nil, nil, err
	}
	webSocketRow := &tally{kind: "websocket"}
	sockets := &webSockets{t: webSocketRow, address: address}
	shares = append(shares,
		share{unaryWeight, unary},
		share{grpcStreamWeight, newStreams(ctx, row("grpc streams"), streamClients, streamsPerLink, address, connectGRPC)},
		share{httpStreamWeight, newStreams(ctx, row("h2c streams"), streamClients, streamsPerLink, address, connectHTTP)},
		share{webSocketWeight, newMessages(ctx, webSocketRow, webSocketCount, sockets.open, nil)},
	)
	return shares, append(rows, webSocketRow), nil
}
