# shellcheck shell=bash
# Sourced by the scripts beside it: what CI needs and how it gets it. A tool that cannot be had is a failure.

GOLANGCI_LINT_VERSION=v2.15.0

# need COMMAND PACKAGE...: installs the Debian packages when the command is absent.
need() {
	local command=$1
	shift
	if command -v "$command" >/dev/null; then
		return
	fi
	echo "installing $* for $command"
	local as_root=()
	if [ "$(id -u)" -ne 0 ]; then
		as_root=(sudo)
	fi
	"${as_root[@]}" apt-get -qq update
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
	command -v "$command" >/dev/null || {
		echo "no $command after installing $*" >&2
		return 1
	}
}

# golangci_lint ARGUMENT...: runs the pinned version, which is built once into a cache outside the repository.
golangci_lint() {
	local dir=${XDG_CACHE_HOME:-$HOME/.cache}/muxserve-ci/golangci-lint-$GOLANGCI_LINT_VERSION
	if [ ! -x "$dir/golangci-lint" ]; then
		echo "building golangci-lint $GOLANGCI_LINT_VERSION into $dir"
		# With a version in its argument, go install reads no go.mod of the current directory and writes none.
		GOBIN=$dir go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$GOLANGCI_LINT_VERSION"
	fi
	"$dir/golangci-lint" "$@"
}

# nested_modules: the directories under testdata that are modules of their own.
nested_modules() {
	find testdata -name node_modules -prune -o -name go.mod -printf '%h\n' | sort
}
