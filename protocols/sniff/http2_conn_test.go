package sniff

import (
	"testing"
)

// told checks what GoneAway says.
func told(t *testing.T, c *Conn, wantTold, wantAcked bool) {
	t.Helper()
	if gotTold, gotAcked := c.GoneAway(); gotTold != wantTold || gotAcked != wantAcked {
		t.Errorf("GoneAway = %v, %v; want %v, %v", gotTold, gotAcked, wantTold, wantAcked)
	}
}

// TestGoAwayWithoutHTTP2 has no effect, whatever the connection is.
func TestGoAwayWithoutHTTP2(t *testing.T) {
	inner := &dripConn{}
	for _, c := range []*Conn{new(Conn), newConn(inner)} {
		c.GoAway()
		c.FinalGoAway()
		told(t, c, false, false)
	}
	if inner.wrote.Len() > 0 {
		t.Errorf("wrote %q", inner.wrote.Bytes())
	}
}
