#!/usr/bin/env bash
# The short form of the table: bash testdata/reload/ci.sh. Arguments are those of the program in the place of the short form's; see README.md.
set -euo pipefail
cd "$(dirname "$0")"

go vet ./...
go test -race ./...
if [ $# -eq 0 ]; then
	set -- -rate 400 -certificates 20 -limits 20 -settings 9 -addresses 12
fi
go run -race=false . "$@"
