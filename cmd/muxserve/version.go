package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// version prints the module's version, the toolchain, and the revision that was built.
func version(_ context.Context, args []string, env environment) int {
	if len(args) > 0 {
		return usageError(env, errors.New("version takes no arguments"))
	}
	info, _ := debug.ReadBuildInfo()
	printVersion(env.stdout, info)
	return exitOK
}

// printVersion shows "unknown" for what the build has not recorded. info may be nil.
func printVersion(w io.Writer, info *debug.BuildInfo) {
	module, revision, when, modified := "unknown", "unknown", "", ""
	if info != nil && info.Main.Version != "" {
		module = info.Main.Version
	}
	if info != nil {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.time":
				when = " of " + s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = ", modified"
			}
		}
	}
	if revision == "unknown" {
		// A tree without a commit is modified too, and tells nothing by it.
		modified = ""
	}
	fmt.Fprintf(w, "muxserve %s\n%s %s/%s\nrevision %s%s%s\n",
		module, runtime.Version(), runtime.GOOS, runtime.GOARCH, revision, when, modified)
}
