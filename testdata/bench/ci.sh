#!/usr/bin/env bash
# Whether the benchmarks work: every operation on every form in tiny numbers. It looks at no figure, since CI's machines have none to trust.
# Arguments are those of the program, for a run that does: bash testdata/bench/ci.sh -rounds 7
set -euo pipefail
cd "$(dirname "$0")/../.."
. .ci/tools.sh

need haproxy haproxy

cd testdata/bench
go vet ./...
if [ $# -eq 0 ]; then
	go test -race ./...
	exit
fi
# The program has ten thousand connections open; a soft limit is no reason to fail.
ulimit -n "$(ulimit -Hn)"
go run -race=false . "$@"
