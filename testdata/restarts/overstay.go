package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// overstayer holds one stream on a connection of its own and never leaves,
// whatever it is told.
type overstayer struct {
	kind    string
	links   *links
	session session
	ended   chan struct{} // closed when the server has ended the stream; what follows is set before
	at      time.Time
	told    bool
}

// newOverstayer opens the stream and makes sure that it works.
func newOverstayer(ctx context.Context, kind string, address func() string, connect func(*dialer) (protocol, error)) (*overstayer, error) {
	// Their connections are cut in the end, which is no fault.
	own := &links{t: &tally{kind: kind}, address: address, connect: connect}
	s, err := own.open(ctx)
	if err != nil {
		return nil, err
	}
	o := &overstayer{kind: kind, links: own, session: s, ended: make(chan struct{})}
	if err := exchange(s, 1); err != nil {
		o.close()
		return nil, err
	}
	go func() {
		defer close(o.ended)
		_, _ = s.receive() // It ends, with whatever error.
		o.at = time.Now()
		o.told = isTold(s)
	}()
	return o, nil
}

// exchange sends a message and waits for its echo.
func exchange(s session, n uint64) error {
	if err := s.send(n); err != nil {
		return err
	}
	got, err := s.receive()
	if err == nil && got != n {
		err = fmt.Errorf("message %d was answered %d", n, got)
	}
	return err
}

// close ends the stream from this side.
func (o *overstayer) close() {
	o.session.close()
	o.links.close()
}

// verdict returns what is wrong with the way the stream has ended, the deadline
// being the moment before which none may be cut.
func (o *overstayer) verdict(deadline time.Time) error {
	<-o.ended
	switch {
	case !o.told:
		return fmt.Errorf("%s: an overstayer was not told to leave", o.kind)
	case o.links.t.twoSteps.Load() == 0:
		return fmt.Errorf("%s: an overstayer was not told its last stream", o.kind)
	case o.links.t.misled.Load() != 0:
		return fmt.Errorf("%s: an overstayer was told wrong: %v", o.kind, o.links.t.firstFaults())
	case o.at.Before(deadline):
		return fmt.Errorf("%s: an overstayer was cut %v before the deadline", o.kind, deadline.Sub(o.at))
	default:
		return nil
	}
}

// newOverstayers opens n of them, half over grpc-go and half over net/http.
func newOverstayers(ctx context.Context, n int, address func() string) ([]*overstayer, error) {
	all := make([]*overstayer, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range all {
		kind, connect := "grpc", connectGRPC
		if i%2 == 1 {
			kind, connect = "h2", connectHTTP
		}
		wg.Go(func() { all[i], errs[i] = newOverstayer(ctx, kind, address, connect) })
	}
	wg.Wait()
	return all, errors.Join(errs...)
}
