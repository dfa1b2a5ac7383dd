package transparency_test

import (
	"testing"

	"github.com/klauspost/compress/gzhttp"
)

// TestGzip: klauspost's middleware around what handlers do.
func TestGzip(t *testing.T) {
	t.Parallel()
	start := func() program {
		p := netHTTP()
		p.handler = gzhttp.GzipHandler(p.handler)
		return p
	}
	scenarios := make(map[string]scenario)
	for name, path := range map[string]string{
		"small": "/mirror", "large": "/large?n=1000000", "stream": "/stream", "panic": "/panic", "panic late": "/panic/late",
		"abort": "/abort", "file": "/files/a.txt", "nothing": "/nothing", "204": "/status?code=204", "304": "/status?code=304",
		"early": "/early", "fields": "/fields", "whole": "/range", "close": "/close", "writer": "/writer", "write deadline": "/deadline/write",
	} {
		scenarios[name] = get(path, field("Accept-Encoding", "gzip"))
		scenarios[name+" plain"] = get(path, field("Accept-Encoding", "identity"))
	}
	scenarios["HEAD"] = request("HEAD", "/range", "", field("Accept-Encoding", "gzip"))
	scenarios["range"] = get("/range", field("Accept-Encoding", "gzip"), field("Range", "bytes=5-2000"))
	scenarios["trailers"] = request("POST", "/trailers", "body", requestTrailer, field("Accept-Encoding", "gzip"))
	everyWay(t, start, scenarios)
}
