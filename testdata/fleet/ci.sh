#!/usr/bin/env bash
# The short form: all questions with few clients, and the tables of the defaults with all of them.
# These run some ten million events, each table in one goroutine, so that the race detector sees one question alone.
set -euo pipefail
cd "$(dirname "$0")"
. ../../.ci/tools.sh

need haproxy haproxy # calibrate's test skips without it.
go vet ./...
packages=$(go list ./... | grep -v '/fleet$')
# shellcheck disable=SC2086 # They are words.
go test -race -p 1 $packages # One after the other: calibrate has deadlines, and sim takes all processors.
go test -race -run TestRun .
go test .
