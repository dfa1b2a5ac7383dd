package protocols

import (
	"strings"
	"testing"
	"unicode/utf8"
	"unsafe"
)

func TestShorten(t *testing.T) {
	for _, tt := range []struct{ given, want string }{
		{"", ""},
		{"12345678", "12345678"},
		{"\xff", "\xff"}, // Nothing was cut.
		{"123456789", "12345…"},
		{"1234é6789", "1234…"},
		{"123é56789", "123é…"},
		{"12\U0001F60056789", "12…"},
		{"\xff\xfe3\xff56789", "?3?5…"},
		{strings.Repeat("\x80", 9), "?…"},
	} {
		got := Shorten(tt.given, 8)
		if got != tt.want {
			t.Errorf("%q becomes %q, want %q", tt.given, got, tt.want)
		}
		if len(tt.given) > 8 && (len(got) > 8 || !utf8.ValidString(got)) {
			t.Errorf("%q has %d bytes", got, len(got))
		}
	}
	if got := Shorten("12345", 1); got != "…" {
		t.Errorf("%q", got)
	}
	at := func(s string) uintptr { return uintptr(unsafe.Pointer(unsafe.StringData(s))) }
	long := strings.Repeat("x", 1000)
	if short := Shorten(long, 8); at(short) >= at(long) && at(short) < at(long)+uintptr(len(long)) {
		t.Error("the beginning keeps the memory of the whole")
	}
}
