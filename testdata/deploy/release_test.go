package deploy

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goreleaser/goreleaser/v2/pkg/config"
)

// TestReproducible builds twice, in two directories.
func TestReproducible(t *testing.T) {
	s := readDockerfile(t, recipes+"/Dockerfile")
	_, first := image(t)
	second := t.TempDir()
	copyStage(t, s[1], buildStage(t, s[0]), second)
	var sums [2][sha256.Size]byte
	for i, dir := range []string{first, second} {
		content, err := os.ReadFile(filepath.Join(dir, "muxserve"))
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = sha256.Sum256(content)
	}
	if sums[0] != sums[1] {
		t.Errorf("%x and %x: the binary depends on its directory", sums[0], sums[1])
	}
}

// TestRelease reads the release's file with goreleaser's own types; unknown keys are
// errors. "bash .ci/release" runs goreleaser itself.
func TestRelease(t *testing.T) {
	project, err := config.Load(root + "/.goreleaser.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(project.Builds) != 1 || len(project.Archives) != 1 || len(project.SBOMs) != 1 {
		t.Fatalf("%d builds, %d archives, %d SBOMs", len(project.Builds), len(project.Archives), len(project.SBOMs))
	}
	// The image and the release are built alike.
	build := project.Builds[0]
	line := readDockerfile(t, recipes+"/Dockerfile")[0].all("RUN")[1]
	for _, want := range slices.Concat(build.Env, []string{"-trimpath", `-ldflags="` + build.Ldflags[0] + `"`, build.Main}) {
		if !strings.Contains(line, want) {
			t.Errorf("the Dockerfile's build %q lacks %s", line, want)
		}
	}
	if !slices.Contains(build.Flags, "-trimpath") || !slices.Contains(build.Env, "CGO_ENABLED=0") || build.ModTimestamp == "" {
		t.Errorf("the build is not reproducible: %q %q %q", build.Env, build.Flags, build.ModTimestamp)
	}
	if project.Checksum.Algorithm != "sha256" || project.SBOMs[0].Cmd != "cyclonedx-gomod" {
		t.Errorf("checksums by %q, SBOMs by %q", project.Checksum.Algorithm, project.SBOMs[0].Cmd)
	}
	for _, f := range project.Archives[0].Files {
		if found, err := filepath.Glob(filepath.Join(root, f.Source)); err != nil || len(found) == 0 {
			t.Errorf("%s: no such file (%v)", f.Source, err)
		}
		if f.Info.MTime == "" {
			t.Errorf("%s has the time of its checkout in the archive", f.Source)
		}
	}
}
