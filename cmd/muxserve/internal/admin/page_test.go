package admin

import (
	"regexp"
	"strings"
	"testing"
)

// TestPageIsWhole: every element that the script looks up is in the document. The page
// uses no other origin and no style that its policy forbids.
func TestPageIsWhole(t *testing.T) {
	t.Parallel()
	lookups := regexp.MustCompile(`byId\("([^"]+)"\)`).FindAllStringSubmatch(pageScript, -1)
	if len(lookups) == 0 {
		t.Error("the script looks up nothing")
	}
	for _, lookup := range lookups {
		if !strings.Contains(pageHTML, `id="`+lookup[1]+`"`) {
			t.Errorf("no element has the id %q", lookup[1])
		}
	}
	const namespace = "http://www.w3.org/2000/svg" // A name that no browser requests.
	all := strings.ReplaceAll(pageHTML+pageStyle+pageScript, namespace, "")
	for _, foreign := range []string{"http:", "https:", `"//`, "@import", "url(", " style=", "innerHTML"} {
		if strings.Contains(all, foreign) {
			t.Errorf("the page contains %q", foreign)
		}
	}
}
