package settings

import (
	"slices"
	"strings"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
)

// adminFlags are the flags by which a client finds a running server.
var adminFlags = []string{"config", "admin", "admin-token", "admin-token-file"}

// AdminFlags returns the flags that [LoadAdmin] uses.
func AdminFlags() []cli.Flag {
	return slices.DeleteFunc(Flags(), func(f cli.Flag) bool { return !slices.Contains(adminFlags, f.Name) })
}

// LoadAdmin is [Load] for a client of the admin listener. It does not mind faults of other
// keys, because the file may be about to be mended. A file that cannot be read is a fault
// unless a flag or a variable has the address.
func LoadAdmin(flags cli.Parsed, getenv func(string) string) (Admin, error) {
	s := Default()
	s.inputs = newInputs(flags, getenv)
	root, _, faults := s.readFile()
	if root != nil {
		faults = append(faults, s.loadFile(root)...)
	}
	faults = append(faults, s.loadOptions()...)
	faults = append(faults, s.loadToken()...)
	address := s.origins["admin.address"]
	faults = slices.DeleteFunc(faults, func(f fault) bool {
		if f.path == "" {
			return address.name != ""
		}
		return !strings.HasPrefix(f.path, "admin.")
	})
	if err := checkAdmin(s.Admin.Address); err != nil && len(faults) == 0 {
		faults = s.locate([]fault{{path: "admin.address", text: err.Error()}})
	}
	return s.Admin, s.report(faults)
}
