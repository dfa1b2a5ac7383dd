package deploy

import (
	"context"
	"debug/elf"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// root is the top of the repository, which is the context of the image's build.
const root = "../.."

const recipes = root + "/cmd/muxserve/deploy"

// built is the binary of the image, built once for all tests.
var built string

func TestMain(m *testing.M) {
	if limits := os.Getenv(envConfined); limits != "" {
		panic(becomeConfined(limits))
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "muxserve-deploy-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		// The user of the image has to reach the binary.
		if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // See above.
			panic(err)
		}
		built = filepath.Join(dir, "image")
		return m.Run()
	}())
}

// image returns the final stage of the Dockerfile and the path of its file system, which
// the first test that asks for it builds.
func image(t *testing.T) (final stage, dir string) {
	t.Helper()
	stages := readDockerfile(t, recipes+"/Dockerfile")
	if len(stages) != 2 || stages[0].name != "build" || stages[1].base != "scratch" {
		t.Fatalf("the Dockerfile has other stages than build and scratch: %+v", stages)
	}
	if _, err := os.Stat(built); errors.Is(err, fs.ErrNotExist) {
		out := buildStage(t, stages[0])
		copyStage(t, stages[1], out, built)
	}
	return stages[1], built
}

// buildStage runs the stage that builds, in a copy of the repository, and returns the
// directory that stands for the stage's root.
func buildStage(t *testing.T, s stage) string {
	t.Helper()
	dir := t.TempDir()
	workdir := s.only(t, "WORKDIR")
	source := filepath.Join(dir, workdir)
	copied := false
	for _, i := range s.instructions {
		switch {
		case i.verb == "COPY" && i.rest == ". .":
			copyRepository(t, source)
			copied = true
		case i.verb == "COPY":
			copyFiles(t, source, strings.Fields(i.rest))
		case i.verb == "RUN":
			// The stage's absolute paths lie below dir.
			line := regexp.MustCompile(`(^|\s)/(out|src)/`).ReplaceAllString(i.rest, "${1}"+dir+"/$2/")
			if copied && !strings.Contains(line, dir+"/out/") {
				t.Fatalf("RUN %s writes nothing below /out", i.rest)
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-ec", line)
			cmd.Dir = source
			// Of a platform that BuildKit does not name, nothing is set. The copy has no .git to stamp.
			cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "TARGETOS=", "TARGETARCH=", "CGO_ENABLED=")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("RUN %s: %v\n%s", i.rest, err, out)
			}
		}
	}
	return dir
}

// copyStage makes the file system of the final stage.
func copyStage(t *testing.T, s stage, from, to string) {
	t.Helper()
	copies := s.all("COPY")
	if len(copies) == 0 {
		t.Fatal("the final stage copies nothing")
	}
	for _, c := range copies {
		files := strings.Fields(c)
		if len(files) != 3 || files[0] != "--from=build" {
			t.Fatalf("COPY %s", c)
		}
		copyFile(t, filepath.Join(from, files[1]), filepath.Join(to, files[2]), 0o755)
	}
}

// copyRepository copies what git tracks, or would. Docker's context has no more, but for
// .git.
func copyRepository(t *testing.T, to string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	files := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	files = slices.DeleteFunc(files, func(name string) bool {
		_, err := os.Lstat(filepath.Join(root, name))
		return err != nil // Deleted, and not yet committed.
	})
	copyFiles(t, to, append(files, "./"))
}

// copyFiles is COPY with several sources: the last of names is the directory.
func copyFiles(t *testing.T, to string, names []string) {
	t.Helper()
	if names[len(names)-1] != "./" {
		t.Fatalf("COPY %q: the target is not ./", names)
	}
	for _, name := range names[:len(names)-1] {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		copyFile(t, filepath.Join(root, name), filepath.Join(to, name), info.Mode().Perm())
	}
}

func copyFile(t *testing.T, from, to string, mode fs.FileMode) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // The image's user reads it.
		t.Fatal(err)
	}
	if err := os.WriteFile(to, content, mode); err != nil {
		t.Fatal(err)
	}
}

// TestImageToolchain checks that the image builds with the Go that go.mod asks for.
func TestImageToolchain(t *testing.T) {
	mod, err := os.ReadFile(root + "/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)
	base := readDockerfile(t, recipes+"/Dockerfile")[0].base
	if version == nil || !strings.HasPrefix(base, "golang:"+string(version[1])+"-") {
		t.Errorf("go.mod says %q, the Dockerfile %s", version, base)
	}
}

// TestImageIsStatic checks that the binary asks for no interpreter and no library, which
// an empty image does not have.
func TestImageIsStatic(t *testing.T) {
	_, dir := image(t)
	binary, err := elf.Open(filepath.Join(dir, "muxserve"))
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	for _, p := range binary.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the binary has a segment %s", p.Type)
		}
	}
}

// TestImageRuns runs what the image runs, as its user and with its file system as the
// root, asks its health check, and stops it by its signal.
func TestImageRuns(t *testing.T) {
	final, dir := image(t)
	uid, gid := numericUser(t, final.only(t, "USER"))
	if uid == 0 || gid == 0 {
		t.Error("the image runs as root")
	}
	if got := final.only(t, "STOPSIGNAL"); got != "SIGTERM" {
		t.Errorf("STOPSIGNAL %s", got)
	}
	service, admin := freeAddress(t), freeAddress(t)
	ports := strings.NewReplacer("127.0.0.1:8081", admin, ":8080", service)
	command := append(final.exec(t, "ENTRYPOINT"), final.exec(t, "CMD")...)
	_, check, _ := strings.Cut(final.only(t, "HEALTHCHECK"), "CMD ")
	probe := words(t, check)
	for _, list := range [][]string{command, probe} {
		for i := range list {
			list[i] = ports.Replace(list[i])
		}
	}

	inside := func(ctx context.Context, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // The recipe says what to run.
		cmd.Path = args[0]                                    // It is looked up in the new root.
		cmd.Err = nil
		cmd.Dir = "/"
		cmd.Env = []string{"PATH=/"}
		cmd.SysProcAttr = containedAs(dir, uid, gid)
		return cmd
	}
	if err := inside(t.Context(), command[0], "version").Run(); errors.Is(err, syscall.EPERM) {
		t.Log("NOT RUN AS IN THE IMAGE: this machine lets this user neither change the root nor make a user namespace; TestImageIsStatic has looked at the file")
		return
	} else if err != nil {
		t.Fatal(err)
	}
	p := start(t, inside(context.WithoutCancel(t.Context()), append(command, "--drain-profile=none")...), admin)
	if code, body := get(t, plain, "http://"+service+"/echo", ""); code != http.StatusOK {
		t.Errorf("/echo: %d %s", code, body)
	}
	if out, err := inside(t.Context(), probe...).CombinedOutput(); err != nil {
		t.Errorf("HEALTHCHECK: %v\n%s", err, out)
	}
	// The root has no /proc to find the binary by, and a container's process 1 cannot be
	// replaced either.
	if err := p.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an upgrade is refused", func() bool { return strings.Contains(p.log.String(), "upgrade refused") })
	p.stop(t)
	if out, err := inside(t.Context(), probe...).CombinedOutput(); err == nil {
		t.Errorf("HEALTHCHECK of a stopped server succeeds:\n%s", out)
	}
}

// containedAs returns how to start a process below a root as a user: directly where this
// process may, and otherwise in a user namespace, where the user is its only one.
func containedAs(dir string, uid, gid uint32) *syscall.SysProcAttr {
	if os.Geteuid() == 0 {
		return &syscall.SysProcAttr{Chroot: dir, Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	}
	return &syscall.SysProcAttr{
		Chroot:      dir,
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: int(uid), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: int(gid), HostID: os.Getgid(), Size: 1}},
	}
}
