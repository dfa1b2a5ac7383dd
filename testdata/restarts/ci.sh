#!/usr/bin/env bash
# The short form of the table: bash testdata/restarts/ci.sh. Arguments are those of the program in the place of the short form's; see README.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
. .ci/tools.sh

need haproxy haproxy

cd testdata/restarts
go vet ./...
go test -race ./...
if [ $# -eq 0 ]; then
	set -- -rate 300 -restarts 3 -upgrades 3 -cycles 100
fi
# The program has thousands of connections open; a soft limit is no reason to fail.
ulimit -n "$(ulimit -Hn)"
go run -race=false . "$@"
