package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// stage is one FROM of a Dockerfile with its instructions.
type stage struct {
	base, name   string
	instructions []instruction
}

type instruction struct{ verb, rest string }

// dockerVerbs are the instructions that the recipe may use. Others make readDockerfile
// fail, so that none is passed over.
var dockerVerbs = regexp.MustCompile(`^(ARG|WORKDIR|COPY|RUN|USER|EXPOSE|STOPSIGNAL|HEALTHCHECK|ENTRYPOINT|CMD)$`)

// readDockerfile returns the stages of a Dockerfile.
func readDockerfile(t *testing.T, file string) []stage {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var stages []stage
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		verb, rest, _ := strings.Cut(line, " ")
		switch {
		case verb == "FROM":
			words := strings.Fields(rest)
			if strings.HasPrefix(words[0], "--platform=") {
				words = words[1:]
			}
			s := stage{base: words[0]}
			if len(words) == 3 && words[1] == "AS" {
				s.name = words[2]
			} else if len(words) != 1 {
				t.Fatalf("%s: FROM %s", file, rest)
			}
			stages = append(stages, s)
		case len(stages) == 0 || !dockerVerbs.MatchString(verb):
			t.Fatalf("%s: unexpected line %q", file, line)
		default:
			last := &stages[len(stages)-1]
			last.instructions = append(last.instructions, instruction{verb, strings.TrimSpace(rest)})
		}
	}
	return stages
}

// all returns what follows a verb, in the order of the file.
func (s stage) all(verb string) []string {
	var found []string
	for _, i := range s.instructions {
		if i.verb == verb {
			found = append(found, i.rest)
		}
	}
	return found
}

// only returns what follows a verb that is there once.
func (s stage) only(t *testing.T, verb string) string {
	t.Helper()
	found := s.all(verb)
	if len(found) != 1 {
		t.Fatalf("stage of %s: %s is there %d times", s.base, verb, len(found))
	}
	return found[0]
}

// exec returns the words of an instruction in the exec form. A scratch image has no shell
// for the other form.
func (s stage) exec(t *testing.T, verb string) []string {
	t.Helper()
	return words(t, s.only(t, verb))
}

func words(t *testing.T, form string) []string {
	t.Helper()
	var list []string
	if err := json.Unmarshal([]byte(form), &list); err != nil || len(list) == 0 {
		t.Fatalf("%q is not in the exec form: %v", form, err)
	}
	return list
}

// numericUser returns the user and the group of USER.
func numericUser(t *testing.T, user string) (uid, gid uint32) {
	t.Helper()
	if _, err := fmt.Sscanf(user, "%d:%d", &uid, &gid); err != nil {
		t.Fatalf("USER %s: %v", user, err)
	}
	return uid, gid
}
