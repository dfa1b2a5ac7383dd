#!/usr/bin/env bash
# The short form of the table: bash testdata/clients/ci.sh. Further arguments are those of the program, such as -requests 2000 -late 60s.
set -euo pipefail
cd "$(dirname "$0")/../.."
. .ci/tools.sh

# python_grpc installs gRPC's C-core with its Python binding, where Debian's Python does not have it.
python_grpc() {
	if ! /usr/bin/python3 -c 'import grpc' 2>/dev/null; then
		local as_root=()
		if [ "$(id -u)" -ne 0 ]; then
			as_root=(sudo)
		fi
		echo "installing python3-grpcio"
		"${as_root[@]}" apt-get -qq update
		"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends python3-grpcio >/dev/null
		/usr/bin/python3 -c 'import grpc'
	fi
}

need curl curl
need nghttp nghttp2-client
need h2load nghttp2-client
need node nodejs
need npm npm
python_grpc

cd testdata/clients
(cd node && npm ci --ignore-scripts --engine-strict --loglevel=error)
go vet ./...
go test -race ./...
if [ $# -eq 0 ]; then
	set -- -requests 200 -late 5s
fi
go run -race=false . "$@"
