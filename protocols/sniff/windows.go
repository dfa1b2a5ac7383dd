package sniff

// KeepWindow keeps updates of the flow-control window of a stream from the client, until
// GiveWindow. It reports false where net/http does not serve the connection by HTTP/2.
func (c *Conn) KeepWindow(stream uint32) bool {
	t := c.h2.Load()
	return t != nil && t.KeepWindow(stream)
}

// GiveWindow tells the client of the updates that were kept, unless the stream is over.
// KeepWindow must have returned true.
func (c *Conn) GiveWindow(stream uint32, over bool) { c.h2.Load().GiveWindow(stream, over) }

// SetInitialWindow has the client take size for the initial window of its streams (RFC 9113,
// section 6.9.2). It does nothing where net/http does not serve the connection by HTTP/2.
func (c *Conn) SetInitialWindow(size uint32) {
	if t := c.h2.Load(); t != nil {
		t.SetInitialWindow(size)
	}
}
