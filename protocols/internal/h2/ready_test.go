package h2

import (
	"bytes"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
)

// A recordConn is read record by record, as a TLS connection is.
type recordConn struct {
	net.Conn
	records [][]byte
	atEnd   func() // called when all has been read, and more would be waited for
}

func (c *recordConn) Read(p []byte) (int, error) {
	for len(c.records) > 0 && len(c.records[0]) == 0 {
		c.records = c.records[1:]
	}
	if len(c.records) == 0 {
		c.atEnd()
		return 0, io.EOF
	}
	n := copy(p, c.records[0])
	c.records[0] = c.records[0][n:]
	return n, nil
}

// onePool has buffers of one length.
type onePool int

func (p onePool) Get(int) *[]byte {
	b := make([]byte, p)
	return &b
}

func (onePool) Put(*[]byte) {}

// TestReadReadySplit: however a client's frames are split into records, the server has them
// before the connection waits for more, but for the header of a frame whose payload is still
// to come.
func TestReadReadySplit(t *testing.T) {
	c := newTestClient()
	for i, path := range []string{"/s/first", "/s/second", "/s/third"} {
		if err := c.WritePing(false, [8]byte{1, 2, 3}); err != nil {
			t.Fatal(err)
		}
		p := http2.HeadersFrameParam{StreamID: uint32(2*i + 1), EndHeaders: true, BlockFragment: c.encode(callFields(path)...)}
		if err := c.WriteHeaders(p); err != nil {
			t.Fatal(err)
		}
		if err := c.WriteData(p.StreamID, true, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	frames := c.out.Bytes()
	all := append([]byte(http2.ClientPreface), frames...)
	isStart := map[int]bool{}
	for at := len(http2.ClientPreface); at < len(all); at += HeaderLen + ParseHeader(all[at:]).Length {
		isStart[at] = true
	}
	for _, native := range []bool{true, false} {
		options := Options{IsNative: native, Watch: testWatch()}
		for from := range all {
			for _, n := range []int{1, 8, 9, 10, 20} {
				to := min(from+n, len(all))
				whole := bytes.Clone(all[:to])
				want := whole[:New(nil, options).Follow(whole)]
				inner := &recordConn{records: [][]byte{all[:from], all[from:to]}}
				track := New(inner, options)
				var got []byte
				inner.atEnd = func() {
					isHeader := isStart[len(got)] && len(want) == len(got)+HeaderLen
					if !bytes.Equal(got, want) && !isHeader {
						t.Errorf("native %t, split at %d and %d: the server has %d bytes, want %d, when more is waited for", native, from, to, len(got), len(want))
					}
				}
				for {
					p := make([]byte, 1000)
					if n := track.Ready(p); n > 0 {
						got = append(got, p[:n]...)
						continue
					}
					buf, n, err := track.ReadReady(1000, onePool(1000))
					if n > 0 {
						got = append(got, (*buf)[:track.Follow((*buf)[:n])]...)
					}
					if err != nil {
						break
					}
				}
			}
		}
	}
}
