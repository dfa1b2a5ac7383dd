package main

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// dialer opens the connections of a kind of client. It is safe for concurrent use.
type dialer struct {
	t *tally
	// known returns the addresses that are published at the moment.
	known func() []string
}

// dial has the signature of [net/http.Transport.DialContext]; where it connects to is the dialer's business. What one address
// refuses goes to the next one that is published, as with any client that knows several.
func (d *dialer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var refusal error
	for _, address := range d.known() {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		switch {
		case err == nil:
			d.t.conns.Add(1)
			if refusal != nil {
				d.t.followed.Add(1)
			}
			return c, nil
		case !errors.Is(err, syscall.ECONNREFUSED):
			return nil, err
		}
		refusal = errors.Join(refusal, err)
	}
	d.t.refused.Add(1)
	return nil, refusal
}
