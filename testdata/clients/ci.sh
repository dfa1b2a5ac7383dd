#!/usr/bin/env bash
# The short form of the table: bash testdata/clients/ci.sh. Further arguments are those of the program, such as -requests 2000 -late 60s.
set -euo pipefail
cd "$(dirname "$0")/../.."
. .ci/tools.sh

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
