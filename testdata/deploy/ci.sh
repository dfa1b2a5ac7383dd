#!/usr/bin/env bash
# Tests the recipes. Without the race detector, which would have Kubernetes' types compiled a second time; the server runs as a process of its own.
set -euo pipefail
cd "$(dirname "$0")/../.."
. .ci/tools.sh

need haproxy haproxy
need systemd-analyze systemd
need gcc gcc libc6-dev

cd testdata/deploy
go vet ./...
go test ./...
