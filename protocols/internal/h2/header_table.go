package h2

import (
	"errors"
	"sync"

	"golang.org/x/net/http2/hpack"
)

// A field is what matters of a header field: which one it is, and whether its value is one
// that a gRPC call has.
type field uint8

// The fields that a call is known by. fits stands beside one of them.
const (
	fieldMethod field = 1 << iota
	fieldPath
	fieldContentType
	fits

	noField field = 0
	aCall         = fieldMethod | fieldPath | fieldContentType
)

// fieldBits is how many bits a field has.
const fieldBits = 4

// fieldOf returns which field has the name.
func fieldOf(name string) field {
	switch name {
	case ":method":
		return fieldMethod
	case ":path":
		return fieldPath
	case "content-type":
		return fieldContentType
	default:
		return noField
	}
}

// A Request is what a header block asks for.
type Request struct {
	has  field // the fields that fit
	miss field // those that do not
}

// IsCall reports a gRPC call, whoever has its service.
func (r Request) IsCall() bool {
	const marks = fieldMethod | fieldContentType
	return r.has&marks == marks && r.miss&marks == 0
}

// isServed reports a call to a service that the native server has.
func (r Request) isServed() bool { return r.has == aCall && r.miss == 0 }

// with returns r with another field.
func (r Request) with(f field) Request {
	if f&fits != 0 {
		r.has |= f &^ fits
	} else {
		r.miss |= f
	}
	return r
}

// fits returns f, and whether the value is one of a call's.
func (w *Watch) fits(f field, value string) field {
	switch {
	case f == fieldMethod && value == "POST",
		f == fieldPath && w.HasService(value),
		f == fieldContentType && w.IsContentType(value):
		return f | fits
	default:
		return f
	}
}

// tableLimit bounds the dynamic table. It is the size of a new one (RFC 9113, section
// 6.5.2), and grpc-go's decoder takes no bigger one.
const tableLimit = 4096

// A headerTable follows the dynamic table of one direction of a connection (RFC 7541) and
// keeps of each entry only its lengths and its field, since hpack's decoder would keep 2 KB
// for each idle connection.
type headerTable struct {
	entries  []tableEntry // the oldest first
	size     uint16
	limit    uint16
	maxBlock uint32 // bounds a header block, in bytes
}

type tableEntry struct {
	size uint16 // as RFC 7541, section 4.1, counts it
	name uint16 // the length of the name, above fieldBits of the field
}

// entryOverhead is added to the lengths of an entry (RFC 7541, section 4.1).
const entryOverhead = 32

// newEntry returns an entry by the lengths of its name and value. One that fits into no table
// has a size that fits into none, and its name does not count.
func newEntry(name, value int, f field) tableEntry {
	return tableEntry{
		size: uint16(min(name+value+entryOverhead, tableLimit+1)),
		name: uint16(min(name, tableLimit-1))<<fieldBits | uint16(f),
	}
}

func (e tableEntry) nameLen() int { return int(e.name >> fieldBits) }
func (e tableEntry) field() field { return field(e.name & (1<<fieldBits - 1)) }

// staticTable has the entries of RFC 7541, appendix A; the first is none. The calls that
// it can name are none of a native server's, since "/" is no method.
var staticTable = sync.OnceValue(func() []tableEntry {
	const entries = 61
	table := make([]tableEntry, 1, 1+entries)
	d := hpack.NewDecoder(tableLimit, func(f hpack.HeaderField) {
		none := func(string) bool { return false }
		watch := Watch{IsContentType: none, HasService: none}
		table = append(table, newEntry(len(f.Name), len(f.Value), watch.fits(fieldOf(f.Name), f.Value)))
	})
	for i := range entries {
		_, _ = d.Write([]byte{indexed | byte(i+1)})
	}
	return table
})

// The first bits of a field's representation (RFC 7541, section 6).
const (
	indexed     = 0x80
	incremental = 0x40
	sizeUpdate  = 0x20
)

var errHPACK = errors.New("h2: malformed header block")

// read takes in a header block and returns what it asks for. After an error, the table is
// out of step with the client's.
func (t *headerTable) read(block []byte, watch *Watch) (Request, error) {
	r := blockReader{rest: block, table: t, watch: watch}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	r.scratch = s
	for len(r.rest) > 0 && !r.failed {
		switch b := r.rest[0]; {
		case b&indexed != 0:
			r.request = r.request.with(t.entry(r.integer(7), &r.failed).field())
		case b&incremental != 0:
			r.literal(6, true)
		case b&sizeUpdate != 0:
			size := r.integer(5)
			if size > tableLimit {
				return Request{}, errHPACK
			}
			t.limit = uint16(size)
			t.evict()
		default:
			r.literal(4, false)
		}
	}
	if r.failed {
		return Request{}, errHPACK
	}
	return r.request, nil
}

// entry returns an entry of the static or the dynamic table.
func (t *headerTable) entry(index uint64, failed *bool) tableEntry {
	static := staticTable()
	switch dynamic := index - uint64(len(static)); {
	case index == 0 || index >= uint64(len(static)+len(t.entries)):
		*failed = true
		return tableEntry{}
	case index < uint64(len(static)):
		return static[index]
	default:
		return t.entries[len(t.entries)-1-int(dynamic)]
	}
}

func (t *headerTable) add(e tableEntry) {
	t.entries = append(t.entries, e)
	t.size += e.size
	t.evict()
}

// evict drops the oldest entries until the rest fits (RFC 7541, section 4.3).
func (t *headerTable) evict() {
	n := 0
	for ; t.size > t.limit; n++ {
		t.size -= t.entries[n].size
	}
	if n > 0 {
		t.entries = t.entries[:copy(t.entries, t.entries[n:])]
	}
}

// A blockReader reads one header block.
type blockReader struct {
	rest    []byte
	table   *headerTable
	watch   *Watch
	scratch *scratch
	request Request
	failed  bool
}

// literal reads a field with a value of its own (RFC 7541, section 6.2), whose index has
// so many bits.
func (r *blockReader) literal(bits uint, add bool) {
	var name int
	var f field
	if index := r.integer(bits); index != 0 {
		e := r.table.entry(index, &r.failed)
		name, f = e.nameLen(), e.field()&^fits
	} else {
		s := r.string(true)
		name, f = len(s), fieldOf(string(s))
	}
	value := r.string(add || f != noField)
	if r.failed {
		return
	}
	if f != noField {
		f = r.watch.fits(f, string(value))
		r.request = r.request.with(f)
	}
	if add {
		r.table.add(newEntry(name, len(value), f))
	}
}

// integer reads an integer with a prefix of so many bits (RFC 7541, section 5.1).
func (r *blockReader) integer(bits uint) uint64 {
	if len(r.rest) == 0 {
		r.failed = true
		return 0
	}
	mask := uint64(1)<<bits - 1
	n := uint64(r.rest[0]) & mask
	r.rest = r.rest[1:]
	if n < mask {
		return n
	}
	const maxShift = 63
	for shift := uint(0); shift < maxShift && len(r.rest) > 0; shift += 7 {
		b := r.rest[0]
		r.rest = r.rest[1:]
		n += uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			return n
		}
	}
	r.failed = true
	return 0
}

// string reads a string (RFC 7541, section 5.2). It is valid until the next one is read,
// and nil if it is not needed.
func (r *blockReader) string(needed bool) []byte {
	if len(r.rest) == 0 {
		r.failed = true
		return nil
	}
	const huffman = 0x80
	isHuffman := r.rest[0]&huffman != 0
	n := r.integer(7)
	if n > uint64(len(r.rest)) {
		r.failed = true
		return nil
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	switch {
	case !needed:
		return nil
	case !isHuffman:
		return s
	}
	r.scratch.b = r.scratch.b[:0]
	if _, err := hpack.HuffmanDecode(r.scratch, s); err != nil {
		r.failed = true
	}
	return r.scratch.b
}

// A scratch holds a decoded string.
type scratch struct{ b []byte }

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// Write implements [io.Writer].
func (s *scratch) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}
