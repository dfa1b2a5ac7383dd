package settings

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/muxserve/muxserve/cmd/muxserve/internal/cli"
)

// VariableWarnings returns a sentence for each variable in environ whose name begins as
// those of the flags do and belongs to none. own are names that the program itself uses.
//
// It is no error, because Kubernetes makes such variables of a Service whose name begins
// with muxserve, in every container of its namespace. Those are passed over.
func VariableWarnings(environ []string, own ...string) []string {
	known := own
	candidates := []string{envPort, envIP, envAppPort}
	for _, o := range options {
		known = append(known, o.env())
		candidates = append(candidates, strings.TrimPrefix(o.env(), envPrefix))
	}
	var warnings []string
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(known, name) || madeByKubernetes(name, value) {
			continue
		}
		meant := "muxserve help flags has them all"
		if near := cli.Nearest(strings.TrimPrefix(name, envPrefix), candidates); near != "" {
			if slices.Contains(known, envPrefix+near) {
				near = envPrefix + near
			}
			meant = "did you mean " + near + "?"
		}
		warnings = append(warnings, fmt.Sprintf("%s is no variable of muxserve; %s", printable(name), meant))
	}
	return warnings
}

// serviceForm matches the names of the variables that Kubernetes makes of a Service.
var serviceForm = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// madeByKubernetes reports whether Kubernetes makes a variable of a Service. The one that
// ends with _PORT has the form that Docker gave to links, and may be a user's otherwise.
func madeByKubernetes(name, value string) bool {
	m := serviceForm.FindStringSubmatch(name)
	return m != nil && (m[1] != "PORT" || ofService(value))
}

// serviceAddress matches the address of a Service, such as tcp://10.0.0.1:80.
var serviceAddress = regexp.MustCompile(`^(tcp|udp|sctp)://`)

// ofService reports whether a value is the address of a Service.
func ofService(value string) bool { return serviceAddress.MatchString(value) }
