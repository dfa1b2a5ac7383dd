#!/usr/bin/env bash
# Vets and runs the browser tests; Chromium is installed where it is absent, and where it cannot be had this fails.
# MUXSERVE_SCREENSHOTS is where the screenshots go: a directory below that of temporary files unless it is set.
set -euo pipefail
cd "$(dirname "$0")"
. ../../.ci/tools.sh

need chromium chromium
need npm npm
npm ci --ignore-scripts --loglevel=error
export MUXSERVE_SCREENSHOTS=${MUXSERVE_SCREENSHOTS:-${TMPDIR:-/tmp}/muxserve-screenshots}
go vet ./...
go test -count=1 -timeout 900s ./...
echo "screenshots: $MUXSERVE_SCREENSHOTS"
