package protocols

import (
	"testing"
	"time"
)

// TestAgeLimit: the limit is spread by a tenth each way.
func TestAgeLimit(t *testing.T) {
	if got := AgeLimit(time.Now(), 0); !got.IsZero() {
		t.Errorf("no limit: %v", got)
	}
	opened := time.Now()
	seen := make(map[time.Time]bool)
	for range 100 {
		at := AgeLimit(opened, time.Hour)
		if age := at.Sub(opened); age < 54*time.Minute || age > 66*time.Minute {
			t.Fatalf("age %v", age)
		}
		seen[at] = true
	}
	if len(seen) < 2 {
		t.Error("no spread")
	}
}
