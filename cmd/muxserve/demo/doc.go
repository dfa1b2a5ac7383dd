// Package demo is what muxserve serves on its port: a page, an echo over HTTP,
// over WebSocket and over gRPC, and files. It shows which way each request came,
// and most of it can be made to take its time, for trying a drain.
package demo

import "time"

// maxWait bounds every wait that a client may ask for.
const maxWait = 5 * time.Minute
