package h2

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"
)

// FuzzHeaderTable has x/net's decoder as its oracle: a headerTable reads what the decoder
// does, and has the same entries behind it. The first byte of the input gives the length of a
// header block, in units of scale, and so on.
func FuzzHeaderTable(f *testing.F) {
	const scale = 64
	for _, n := range []int{1, 254, 255, 256, 2000, 4000, 4063, 4064, 4065, 9000} {
		c := newTestClient()
		name := strings.Repeat("n", n)
		var sent []byte
		for i := range 10 { // With values that push out one entry, or all.
			if i == 7 {
				c.encoder.SetMaxDynamicTableSize(uint32(n + entryOverhead))
			}
			block := c.encode(callFields("/s/Call", name, strings.Repeat("v", i*i), "x", strings.Repeat("y", i*i*i))...)
			for len(block)%scale > 0 {
				block = append(block, indexed|2) // GET
			}
			sent = append(append(sent, byte(len(block)/scale)), block...)
		}
		f.Add(sent)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		table, decoder := headerTable{limit: tableLimit}, hpack.NewDecoder(tableLimit, nil)
		for len(b) > 0 {
			n := min(int(b[0])*scale, len(b)-1)
			block := b[1 : 1+n]
			b = b[1+n:]
			fields, err := decoder.DecodeFull(block)
			if err != nil {
				return // The server ends the connection.
			}
			r, err := table.read(block, testWatch())
			if err != nil || r.isServed() != oracleIsCall(fields) {
				t.Fatalf("%v; served %t, want %t", err, r.isServed(), oracleIsCall(fields))
			}
			if got, want := sizesOf(&table), decoderSizes(decoder); !slices.Equal(got, want) {
				t.Fatalf("entries of %d bytes, want %d", got, want)
			}
		}
	})
}

// sizesOf returns the sizes of a table's entries, the latest first.
func sizesOf(t *headerTable) (sizes []int) {
	for _, e := range slices.Backward(t.entries) {
		sizes = append(sizes, int(e.size))
	}
	return sizes
}

// decoderSizes is sizesOf for a decoder, which it asks for each entry.
func decoderSizes(d *hpack.Decoder) (sizes []int) {
	const prefix = 1<<7 - 1 // of an index (RFC 7541, section 5.1)
	for index := len(staticTable()); ; index++ {
		block := []byte{indexed | byte(index)}
		if index >= prefix {
			block = []byte{indexed | prefix, byte(index - prefix)}
		}
		fields, err := d.DecodeFull(block)
		if err != nil {
			_ = d.Close() // It begins anew.
			return sizes
		}
		sizes = append(sizes, int(fields[0].Size()))
	}
}
