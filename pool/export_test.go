package pool

// HoldsBuffer reports whether c holds a buffer with bytes that were read ahead.
func (c *Conn) HoldsBuffer() bool { return c.reader != nil && c.reader.ahead != nil }
