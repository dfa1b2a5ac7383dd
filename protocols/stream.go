package protocols

import (
	"io"
	"net/http"
	"reflect"
)

// StreamOfResponse returns the HTTP/2 stream of a request, by the ResponseWriter that the
// server has made. The server has no other way to tell than its own fields; where those have
// changed, or with one of another server, StreamOfResponse reports false.
func StreamOfResponse(w http.ResponseWriter) (stream uint32, ok bool) {
	return numberAt(w, "rws", "stream", "id")
}

// streamOf is StreamOfResponse by the body that the server has given the request.
func streamOf(body io.Reader) (stream uint32, ok bool) {
	return numberAt(body, "stream", "id")
}

// numberAt returns a number of 32 bits, which is not 0, by the path to its field.
func numberAt(from any, path ...string) (number uint32, ok bool) {
	v := fieldAt(from, path...)
	if v.Kind() != reflect.Uint32 {
		return 0, false
	}
	return uint32(v.Uint()), v.Uint() != 0
}

// fieldAt returns a field by the path to it, each part of which but the last names a struct
// or a pointer to one. It returns the zero Value where there is no such field.
func fieldAt(from any, path ...string) reflect.Value {
	v := reflect.ValueOf(from)
	for _, name := range path {
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct {
			return reflect.Value{}
		}
		v = v.FieldByName(name)
	}
	return v
}

// AwaitsContinue reports whether the client of an HTTP/2 request waits for the status 100
// (Continue), by the body that the server has given it. The server sends that at the first
// read, and has taken the Expect field out of the request. It is as StreamOfResponse in this.
func AwaitsContinue(body io.Reader) bool {
	v := fieldAt(body, "needsContinue")
	return v.Kind() == reflect.Bool && v.Bool()
}
