# Every target is one plain command, so that it can be typed without make too.
.PHONY: run test lint e2e conformance clients stress fuzz bench

# FUZZTIME is how long each fuzz target runs.
FUZZTIME ?= 30s

run: ## serve the four protocols on 127.0.0.1:8080
	go run ./cmd/muxserve

test: ## the hermetic tests: only the Go toolchain is needed
	go test ./...

lint: ## gofmt, go vet and golangci-lint at its pinned version
	bash .ci/lint

e2e: ## the real binary against curl, nghttp2, ws and grpc-js
	bash testdata/e2e/run.sh

conformance: ## h2spec, the gRPC interop cases and a WebSocket suite
	cd testdata/conformance && go test -race ./...

clients: ## 2,000 requests from each of a dozen HTTP/2 and gRPC clients, none lost
	bash testdata/clients/ci.sh -requests 2000 -late 60s

stress: ## the long forms of the stress tests; several minutes
	cd testdata/stress && go test -count=1 -v -timeout 30m . -long
	bash testdata/restarts/ci.sh -rate 1000 -restarts 100 -upgrades 50 -cycles 1000
	bash testdata/reload/ci.sh -rate 1000

fuzz: ## every fuzz target of the repository, FUZZTIME each
	FUZZTIME=$(FUZZTIME) bash .ci/fuzz

bench: ## server CPU, latency and memory through the mux and beside it; about two hours
	cd testdata/bench && go run . -rounds 7
