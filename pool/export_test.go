package pool

// HoldsBuffer reports whether c holds a buffer with bytes that were read ahead.
func (c *Conn) HoldsBuffer() bool { return c.HasReader() && c.reader.Load().ahead != nil }

// HasReader reports whether the connection has what other reads than net's need.
func (c *Conn) HasReader() bool { return c.reader.Load() != nil }

const (
	MinLargeRead = minLargeRead
	MaxLargeRead = maxLargeRead
)
