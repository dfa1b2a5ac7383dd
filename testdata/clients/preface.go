package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

const (
	sniffTime = 3 * time.Second // muxserve's default
	// slack is what closing may take on top of it, on a machine that has more to do.
	slack = time.Second
)

// halfPreface opens connections that send a part of the HTTP/2 preface, or all
// of it and no SETTINGS, and then nothing. It returns how many were closed
// within the sniff time, without a word.
func halfPreface(ctx context.Context, t target) (int, error) {
	var closed atomic.Int64
	err := eachConnection(t.load.connections, func(i int) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", t.addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		part := http2.ClientPreface[:1+i%len(http2.ClientPreface)]
		if _, err := io.WriteString(conn, part); err != nil {
			return err
		}
		conn.SetReadDeadline(time.Now().Add(sniffTime + slack))
		answer, err := io.ReadAll(conn)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("after %q the connection is still open", part)
		case len(answer) > 0:
			return fmt.Errorf("after %q the server said %q", part, answer)
		}
		closed.Add(1)
		return nil
	})
	return int(closed.Load()), err
}
