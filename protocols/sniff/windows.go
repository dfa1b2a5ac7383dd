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
