#!/usr/bin/env bash
# Vets and runs the browser tests; Chromium is installed where it is absent, and where it cannot be had this fails.
set -euo pipefail
cd "$(dirname "$0")"
. ../../.ci/tools.sh

need chromium chromium
go vet ./...
go test -count=1 -timeout 120s ./...
