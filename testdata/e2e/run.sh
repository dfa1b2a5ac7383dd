#!/usr/bin/env bash
# Builds muxserve and asks it everything with clients that other people wrote: bash testdata/e2e/run.sh
# Needs go, node, npm, curl, nghttp, h2load, haproxy and openssl; a missing one is a failure.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
for tool in go node npm curl nghttp h2load haproxy openssl; do
	command -v "$tool" >/dev/null || missing+=("$tool")
done
if [ ${#missing[@]} -gt 0 ]; then
	echo "missing: ${missing[*]} (Debian: apt install nodejs npm curl nghttp2-client haproxy openssl)" >&2
	exit 1
fi

npm ci --ignore-scripts --loglevel=error
# The version stamp asks git about the checkout, whose owner may be another one here.
(cd ../.. && go build -buildvcs=false -o testdata/e2e/bin/muxserve ./cmd/muxserve)
exec node main.mjs bin/muxserve
