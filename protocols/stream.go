package protocols

import (
	"io"
	"reflect"
)

// StreamOf returns the HTTP/2 stream of a request, by the body that the server has given
// it. The server has no other way to tell than its own fields; where those have changed, or
// with the body of another server, StreamOf reports false.
func StreamOf(body io.Reader) (stream uint32, ok bool) {
	v := reflect.ValueOf(body)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return 0, false
	}
	v = v.Elem().FieldByName("stream")
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return 0, false
	}
	id := v.Elem().FieldByName("id")
	if id.Kind() != reflect.Uint32 {
		return 0, false
	}
	return uint32(id.Uint()), id.Uint() != 0
}
