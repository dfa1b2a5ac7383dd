package stress

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muxserve/muxserve/testdata/clients/process"
)

// admin returns a page of the admin listener.
func admin(t *testing.T, p *process.Process, path string) string {
	t.Helper()
	// Each page on a connection of its own leaves none behind for goleak.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Get("http://" + p.Admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v", path, resp.Status, err)
	}
	return string(body)
}

// heapFigures are what the embedding server says of itself.
type heapFigures struct {
	// Live is how many bytes of the heap are in use, without garbage.
	Live int64 `json:"live"`
	// Sniffing is how many connections are being recognised.
	Sniffing int64 `json:"sniffing"`
}

func figures(t *testing.T, p *process.Process) heapFigures {
	t.Helper()
	var f heapFigures
	if err := json.Unmarshal([]byte(admin(t, p, "/figures")), &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// metric adds up the samples of a metric whose labels contain label.
func metric(t *testing.T, p *process.Process, name, label string) int64 {
	t.Helper()
	var sum int64
	for line := range strings.Lines(admin(t, p, "/metrics")) {
		labels, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.HasPrefix(labels, name+"{") && strings.Contains(labels, label) {
			sum += number(t, value)
		}
	}
	return sum
}

// tick is the unit of processor time in /proc, USER_HZ; Linux shows it as 100 to
// every process (proc_pid_stat(5), time(7)).
const tick = time.Second / 100

// processorTime returns how much processor time the process has used.
func processorTime(t *testing.T, p *process.Process) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	// The second field, the name in parentheses, may hold blanks. utime and stime are
	// the fields 14 and 15.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	const utime, stime = 14 - 3, 15 - 3
	return time.Duration(number(t, fields[utime])+number(t, fields[stime])) * tick
}

var peakResident = regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`)

// peakMemory returns the most memory that the process has had, in bytes.
func peakMemory(t *testing.T, p *process.Process) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	match := peakResident.FindSubmatch(status)
	if match == nil {
		t.Fatal("no VmHWM in the process's status")
	}
	const kilo = 1 << 10
	return number(t, string(match[1])) * kilo
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
