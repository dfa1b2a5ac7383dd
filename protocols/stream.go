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

// AwaitsContinue reports whether the client of an HTTP/2 request waits for the status 100
// (Continue), by the body that the server has given it. The server sends that at the first
// read, and has taken the Expect field out of the request. It is as StreamOf in this.
func AwaitsContinue(body io.Reader) bool {
	v := reflect.ValueOf(body)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return false
	}
	v = v.Elem().FieldByName("needsContinue")
	return v.Kind() == reflect.Bool && v.Bool()
}
