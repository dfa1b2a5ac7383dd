#!/usr/bin/env bash
# The short form of the table: bash testdata/mixed/ci.sh. Further arguments are those of the program, such as -requests 2000 -seed 7.
set -euo pipefail
cd "$(dirname "$0")/../.."
. .ci/tools.sh

need haproxy haproxy
need nginx nginx
need node nodejs
need npm npm
newer_node
python_modules

(cd testdata/clients/node && npm ci --ignore-scripts --engine-strict --loglevel=error)
cd testdata/mixed
go vet ./...
if [ $# -eq 0 ]; then
	set -- -requests 200
fi
go run -race=false . "$@"
