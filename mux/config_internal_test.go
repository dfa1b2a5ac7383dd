package mux

import (
	"reflect"
	"testing"
)

// TestConfigClone: a caller that changes a copy of the configuration in place does not change
// the one in use, whatever lists are in it.
func TestConfigClone(t *testing.T) {
	var c Config
	fill(reflect.ValueOf(&c).Elem())
	n := compareLists(t, "", reflect.ValueOf(c), reflect.ValueOf(c.clone()))
	if n < 7 {
		t.Errorf("%d lists were compared", n)
	}
}

// fill gives each list one element, and so on within that.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(field)
		}
	}
}

// compareLists fails for lists of a and b that share an element, and returns how many it has
// compared. It also fails for kinds that it does not know.
func compareLists(t *testing.T, path string, a, b reflect.Value) (n int) {
	t.Helper()
	switch a.Kind() {
	case reflect.Slice:
		if a.Pointer() == b.Pointer() {
			t.Errorf("%s is shared", path)
		}
		return 1 + compareLists(t, path+"[0]", a.Index(0), b.Index(0))
	case reflect.Struct:
		for i := range a.NumField() {
			n += compareLists(t, path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))
		}
	case reflect.Map, reflect.Pointer, reflect.Interface, reflect.Func, reflect.Chan:
		if path != ".Extra" { // It is whoever's who has set it.
			t.Errorf("%s: a %v", path, a.Kind())
		}
	}
	return n
}
