# Two commands do everything on a fresh machine: make run, make test.
.DEFAULT_GOAL := help
export GOFLAGS := -buildvcs=false
# What a user has set for other work: another workspace or target, messages that scripts would not know.
unexport GOWORK GOOS GOARCH GOEXPERIMENT CDPATH
export LC_ALL := C.UTF-8
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
MODULES := proto pkg bpf services test wasm-filters
# Those whose tests run goroutines of the product in their own process run under the race detector. Those of test/ start the
# programs and look at them from outside, where it does not see: race-programs builds the programs with it. proto has no
# tests. The tests of servername try fewer names under it, and run once more without.
RACE := pkg bpf services

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "%-20s %s\n", $$1, $$2}'

.PHONY: build
build: ## Build every program into bin/
	go build -o bin/ ./services/...

.PHONY: run
run: build ## Run the whole system on this machine
	bin/marchproxy dev $(ARGS)

.PHONY: test
test: test-needs build lint check-generated check-webui check-docs check-wasm check-bpf race ## Check everything, with real PostgreSQL, NATS and Envoy
	go test -count=1 -timeout 40m $(filter-out $(RACE:%=./%/...),$(MODULES:%=./%/...)) ./pkg/servername
	go run ./test/cmd/bench-scale -hosts 1000 -changes 30 -idle 1s -churn 10s -slack 20 -only change,add,memory,writers,apis,idle,xds,restart,backup,delete,churn
	go run ./test/cmd/check-live -changes 300
	go run ./test/cmd/check-hitless -rounds 100 -certificates 5 -changes 12
	go run ./test/cmd/check-acme -names 12 -envoys 2 -rate 100 -kept 10
	go run ./test/cmd/check-auth -trials 300
	go run ./test/cmd/check-explain -configurations 40 -requests 5000 -seed 2
	go run ./test/cmd/chaos -kills 9
	go run ./test/cmd/check-disk -rounds 1 -hold 2s
	go run ./test/cmd/check-input -examples 5
	go run ./test/cmd/check-clients
	go run ./test/cmd/diff-auth -n 20000 -envoy 4000
	go run ./test/cmd/fuzz-filters -n 30000 -envoy 5000
	go run ./test/cmd/bench-proxy -rounds 1 -hosts 200 -protocols http1,tls
	go run ./test/cmd/bench-hostile -for 20s -quiet 5s -slack 2s

.PHONY: race
race: ## Run the packages' tests under the race detector, in an order of their own each time
	go test -race -shuffle=on -count=1 -timeout 20m $(RACE:%=./%/...)

.PHONY: race-programs
race-programs: ## Run the programs themselves under the race detector, beside the real PostgreSQL, NATS and Envoy (ARGS='-run TestName')
	rm -rf bin/races && mkdir -p bin/races
	MARCHPROXY_BUILD_FLAGS=-race GORACE=log_path=$(CURDIR)/bin/races/race go test -count=1 -timeout 40m ./test/e2e/ $(or $(ARGS),-run 'TestEveryFeatureIsTaken'); \
	status=$$?; $(MAKE) --no-print-directory build; if cat bin/races/race* 2>/dev/null; then status=1; fi; exit $$status

.PHONY: test-needs
test-needs: # what make test would otherwise miss after ten minutes
	@[ "$$(id -u)" = 0 ] || { echo 'make test needs root: it loads XDP programs and makes network namespaces' >&2; exit 1; }
	@scripts/needs ip unshare mountpoint setpriv git curl openssl cc bpftool ab promtool named nginx haproxy caddy h2load clang-14 llvm-strip-14 /usr/include/bpf/bpf_helpers.h chromium
	@scripts/rust true

.PHONY: check-fresh
check-fresh: ## Run both README commands in a bare Debian, beside neighbours, from empty caches (root; an hour)
	scripts/bare-root $(ARGS)

.PHONY: lint
lint: ## Check format, code and schema
	@test -z "$$(scripts/tool gofumpt -l pkg services test bpf docs wasm-filters)" || { scripts/tool gofumpt -l pkg services test bpf docs wasm-filters; echo 'not formatted: make fmt'; exit 1; }
	@set -e; for m in $(MODULES); do (cd $$m && ../scripts/tool golangci-lint run --allow-parallel-runners --timeout 15m ./...); done
	scripts/protovalidate-schema
	scripts/tool buf lint
	scripts/breaking
	scripts/hadolint deployments/docker/Dockerfile

.PHONY: fmt
fmt: ## Format Go and schema
	scripts/tool gofumpt -w pkg services test bpf docs wasm-filters
	scripts/tool buf format -w proto

.PHONY: generate
generate: ## Generate Go code and JSON Schema from proto/, and the Grafana dashboards
	scripts/generate
	scripts/dashboards

.PHONY: check-generated
check-generated: ## Fail where generated code is not what proto/ gives, or a dashboard not what test/cmd/dashboards gives
	scripts/check-generated
	scripts/dashboards --check

.PHONY: generate-bpf
generate-bpf: ## Compile the XDP program and generate its Go bindings
	scripts/bpf

.PHONY: check-bpf
check-bpf: ## Fail where the committed XDP object is not what bpf/c gives
	scripts/bpf --check

.PHONY: fuzz-bpf
fuzz-bpf: ## Hold the loaded XDP program against the Go model: 2,000,000 packets, then the fuzzer
	cd bpf && go test -count=1 -run TestAgainstModel -v . -fuzz-cases 2000000 $(ARGS)
	cd bpf && go test -run '^$$' -fuzz FuzzFrame -fuzztime 3000x -fuzzminimizetime 1x -parallel 1 .

.PHONY: bench-xdp
bench-xdp: ## Time the XDP program against a bare XDP_DROP and Debian's xdp-filter
	scripts/bpf-peers
	cd bpf && go test -count=1 -run TestSpeed -v . -speed-rounds 11 -speed-repeat 1000000 -speed-slack 1 -speed-bars $(ARGS)

.PHONY: bench-flood
bench-flood: ## Time a client's requests beside a SYN flood: met by XDP_DROP, this program, none, and on its own link
	cd bpf && go test -count=1 -run TestSYNFlood -v . -flood-rounds 5 -flood-requests 1000 -flood-slack 1 $(ARGS)

.PHONY: bench-propagation
bench-propagation: build ## Measure how long a change takes to be live, beside Envoy's floor
	go run ./test/cmd/bench-propagation $(ARGS)

.PHONY: bench-scale
bench-scale: build ## Measure changes, bulk, memory, writers, restarts and a backup with 100,000 hosts (12 minutes; ARGS='-only churn' for more)
	go run ./test/cmd/bench-scale $(ARGS)

.PHONY: bench-fanout
bench-fanout: build ## Measure a change, a burst and a reconnect with 1,000 and 5,000 Envoys, some slow, some hung
	go run ./test/cmd/bench-fanout $(ARGS)

.PHONY: bench-certificates
bench-certificates: build ## Measure what a certificate costs beside 1,000 and 10,000 others, and made-up names
	go run ./test/cmd/bench-certificates $(ARGS)

.PHONY: check-live
check-live: build ## Prove that wait=live means live: 5,000 changes, two requests each
	go run ./test/cmd/check-live $(ARGS)

.PHONY: check-hitless
check-hitless: build ## Prove that no change of the configuration costs a request or an open connection, under load
	go run ./test/cmd/check-hitless $(ARGS)

.PHONY: test-discover
test-discover: build ## Prove discovery with a real Docker engine: 50 compose services that come, scale, fail and go (10 minutes; ARGS='-services 6 -for 30s')
	go run ./test/cmd/check-discover $(ARGS)

.PHONY: test-acme
test-acme: build ## Prove that certificates come and are renewed by themselves: 200 names, 3 Envoys, a real authority, an api killed
	go run ./test/cmd/check-acme $(ARGS)

.PHONY: check-auth
check-auth: build ## Prove that a revoked key stops working when wait=live returns: 2,000 revocations
	go run ./test/cmd/check-auth $(ARGS)

.PHONY: check-explain
check-explain: build ## Hold what is said of a request against a real Envoy: 200 configurations, 100,000 requests
	go run ./test/cmd/check-explain $(ARGS)

.PHONY: check-security
check-security: build ## Try every hole that was closed, against the real system
	go test -count=1 -timeout 30m ./test/security/ $(ARGS)

.PHONY: check-known
check-known: ## Ask the vulnerability databases about all dependencies, and say which cannot be reached
	scripts/known

.PHONY: webui
webui: ## Build the web UI into services/webui/dist (running it needs no Node.js)
	scripts/webui

.PHONY: check-webui
check-webui: ## Check that services/webui/dist is what its sources give, byte for byte
	scripts/webui --check

.PHONY: test-webui
test-webui: build ## Look at the web UI with Chromium, at a real system (ARGS=rollback for one test)
	go test -count=1 -timeout 60m -v ./test/webui/ -only '$(ARGS)'

.PHONY: screenshots
screenshots: build ## Make docs/images anew: every page of the web UI, in both schemes, on a desk and on a phone
	rm -rf docs/images
	go test -count=1 -timeout 60m -v ./test/webui/ -only 'every page|account look well|home looks well' -shots $(CURDIR)/docs
	scripts/docs

.PHONY: docs
docs: ## Build the documentation's pages into services/docsite/dist of docs/ (running them needs no Node.js)
	scripts/docs

.PHONY: check-docs
check-docs: ## Check that services/docsite/dist is what docs/ gives, byte for byte
	scripts/docs --check

.PHONY: walkthrough
walkthrough: ## Ask a running system (make run) what the integration guide asks, with its status codes
	scripts/walkthrough

.PHONY: check-input
check-input: build ## Send the API what Schemathesis makes of its OpenAPI document
	go run ./test/cmd/check-input $(ARGS)

.PHONY: check-clients
check-clients: build ## Make clients of the API in Python, TypeScript and Go, and use every kind with each
	go run ./test/cmd/check-clients $(ARGS)

.PHONY: fuzz
fuzz: ## Fuzz the decoders, the translator and what opens sealed values, FUZZTIME (30s) each
	scripts/fuzz $(FUZZTIME)

.PHONY: chaos
chaos: build ## Kill every part under load and look for what was lost
	go run ./test/cmd/chaos $(ARGS)

.PHONY: test-compose
test-compose: ## Build the images twice, bring up docker compose, run the guide's tests; kill and upgrade under load (ARGS='-ha=false -images=false' for a short one)
	go run ./test/cmd/check-compose -ha -images $(ARGS)

.PHONY: test-nomad
test-nomad: build ## Check the jobs of deployments/nomad and replace each of them under load, without a Nomad (root; 5 minutes)
	go test -count=1 -v -timeout 20m ./test/nomad/ -full $(ARGS)

.PHONY: test-upgrade
test-upgrade: build ## Replace the last release by this one and back, a process after another, in each order, under load (8 minutes)
	go test -count=1 -v -timeout 30m ./test/upgrade/ -full $(ARGS)

.PHONY: images
images: ## Build the images for amd64 and arm64, reproducibly, with their SBOMs
	scripts/images $(ARGS)

.PHONY: check-disk
check-disk: build ## Fill the disks of NATS, PostgreSQL and xds under load, and look for what was lost
	go run ./test/cmd/check-disk $(ARGS)

.PHONY: wasm
wasm: ## Build the filters into wasm-filters/dist (running them needs no Rust)
	scripts/wasm

.PHONY: check-wasm
check-wasm: ## Check the filters' Rust code, and that wasm-filters/dist is what it gives, byte for byte
	scripts/rust cargo fmt --all --check
	scripts/rust cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
	scripts/rust cargo clippy --quiet --locked --workspace --target wasm32-unknown-unknown -- -D warnings
	scripts/rust cargo test --quiet --locked --workspace
	scripts/wasm --check

.PHONY: check-differential
check-differential: build ## Hold the auth filter against golang-jwt, go-jose and jwt_authn: 1,000,000 cases
	go run ./test/cmd/diff-auth $(ARGS)

.PHONY: bench-agent
bench-agent: build ## Measure how long a policy takes until the kernel enforces it (root)
	go run ./test/cmd/bench-agent $(ARGS)

.PHONY: fuzz-filters
fuzz-filters: build ## Feed the filters 10,000,000 broken inputs: natively, compiled, and in the real Envoy
	scripts/fuzz-filters $(ARGS)

.PHONY: bench-filters
bench-filters: build ## Measure what the filters cost in the real Envoy, beside jwt_authn
	go run ./test/cmd/bench-filters $(ARGS)

.PHONY: bench-proxy
bench-proxy: build ## Measure what a request costs, beside a bare Envoy, nginx, HAProxy and Caddy
	@scripts/needs nginx haproxy caddy h2load
	go run ./test/cmd/bench-proxy $(ARGS)

.PHONY: bench-hostile
bench-hostile: build ## Measure a client's p99 and the memory under ten minutes of hostile load before authentication
	go run ./test/cmd/bench-hostile $(ARGS)
