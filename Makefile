# Everything here needs Go and make, and nothing else, unless its line says so: the
# other tools are Go modules pinned in go.mod and in the go.mod files below tools/.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

GO ?= go
BIN := bin
BUF := $(GO) tool -modfile=tools/go.mod buf
BENCHSTAT := $(GO) tool -modfile=tools/go.mod benchstat
LINT := $(GO) tool -modfile=tools/lint/go.mod golangci-lint
DIST := dist

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the server, notebookctl and the simulated clouds into bin/.
	$(GO) build -o $(BIN)/ ./cmd/...

.PHONY: run
run: build ## Run the server on two simulated clouds.
	$(BIN)/server

.PHONY: test
test: ## Run all tests with the race detector.
	$(GO) test -race -shuffle=on -parallel 6 ./...

# They wait more than they compute, so they run beside each other.
.PHONY: campaign
campaign: ## Run in full what `make test` runs a part of: faults, crashes, every setting, replicas.
	@$(MAKE) --no-print-directory -j 2 --output-sync=target campaign-faults campaign-replicas

.PHONY: campaign-faults
campaign-faults:
	NOTEBOOKD_WHOLE=1 $(GO) test -race -parallel 5 -timeout 20m \
		-run '^(TestFaultMatrix|TestRehearse|TestKilled.*|TestManyChangesUnderFaults|TestConformance|TestChangeOutlivesReloads)$$' ./cmd/server ./internal/upstream/...

.PHONY: campaign-replicas
campaign-replicas:
	NOTEBOOKD_WHOLE=1 $(GO) test -race -parallel 3 -timeout 20m -run '^TestReplicas.*$$' ./cmd/server

SOAK ?= 10m
.PHONY: soak
soak: ## Let clouds fail and watchers reconnect for SOAK (10m), and compare.
	$(GO) test -race -v -count=1 -run '^TestSoak$$' -timeout $(SOAK)15m ./cmd/server -soak $(SOAK)

CHAOS ?= 10m
.PHONY: chaos
chaos: ## Kill, freeze and cut off replicas and NATS nodes for CHAOS (10m), and compare.
	$(GO) test -race -v -count=1 -run '^TestChaos$$' -timeout $(CHAOS)10m ./cmd/server -chaos $(CHAOS)

ATTACK ?= 1m
.PHONY: attack
attack: ## Attack a server in every known way for ATTACK (1m) altogether, and with a million frames.
	NOTEBOOKD_WHOLE=1 $(GO) test -race -v -count=1 -run '^(TestAttacks|TestGarbageFrames)$$' -timeout $(ATTACK)10m ./cmd/server -attack $(ATTACK)

.PHONY: test-browser
test-browser: ## Run the tests that need a browser (Debian: chromium).
	$(GO) test -race -count=1 -tags browser -run '^TestBrowser' ./cmd/server/

.PHONY: test-console
test-console: build ## Run the tests of the web console in a browser (Debian: chromium openssl; Node).
	cd web/e2e && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --ignore-scripts --no-audit --no-fund && npm run check && npm test

PERF ?= 10m
.PHONY: perf-console
perf-console: build ## Measure the web console with 100,000 notebooks, its memory for PERF (10m) (as test-console).
	cd web/e2e && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --ignore-scripts --no-audit --no-fund && npm run check && PERF=$(PERF) npm run perf

.PHONY: test-docs
test-docs: ## Run the commands of README.md, docs/ and the pages of the clouds and compare what they print (Debian: curl jq openssl).
	$(GO) test -count=1 -parallel 16 -tags docs ./docs/

.PHONY: test-examples
test-examples: ## Run the examples as their READMEs say (Debian: curl jq python3-grpcio python3-protobuf chromium; Node).
	cd examples/node && npm ci --ignore-scripts --no-audit --no-fund
	$(GO) test -count=1 -parallel 8 -tags examples ./examples/

FUZZTIME ?= 2m
.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (2m).
	@./internal/tools/fuzz.sh $(FUZZTIME)

# The ratios to a plain server three times, what takes long once.
.PHONY: bench
bench: ## Run the benchmarks, with ratios to plain grpc-go, and sum them up.
	@mkdir -p $(BIN)
	$(GO) test -run '^$$' -bench '^Benchmark(List|Watch)$$' -benchtime 1x -count 3 ./cmd/server | tee $(BIN)/bench.txt
	$(GO) test -run '^$$' -bench . -benchmem -count 3 ./internal/... | tee -a $(BIN)/bench.txt
	$(GO) test -run '^$$' -bench '^Benchmark(Store|TenThousandWatchers|NewReplica|ListWhileACloudHangs)$$' -benchtime 1x ./cmd/server | tee -a $(BIN)/bench.txt
	$(BENCHSTAT) $(BIN)/bench.txt

.PHONY: live
live: ## List real clouds, read-only, if their credentials are in the environment.
	@$(GO) run ./internal/tools/live

.PHONY: proto
proto: third-party ## Regenerate gen/ from proto/.
	rm -rf gen
	@./internal/tools/generate.sh .

# The contract's imports, printed from pinned Go modules: no schema registry.
.PHONY: third-party
third-party:
	$(GO) run ./internal/tools/thirdparty third_party/proto

.PHONY: docs
docs: ## Regenerate the references in docs/ from the source.
	$(GO) run ./internal/tools/docs . docs

.PHONY: fmt
fmt: ## Format everything.
	$(GO) fmt ./...
	$(BUF) format -w proto

.PHONY: check
check: third-party ## Check format, vet, lint, the contract, and that generated code is up to date.
	@echo "== gofmt"
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
		if [ -n "$$unformatted" ]; then echo "not formatted:"; echo "$$unformatted"; exit 1; fi
	@echo "== go.mod tidy"
	$(GO) mod tidy -diff
	@echo "== vet"
	$(GO) vet ./...
	@echo "== lint"
	$(LINT) run ./...
	@echo "== buf"
	$(BUF) format --diff --exit-code proto
	$(BUF) lint
	@./internal/tools/check-breaking.sh
	@echo "== generated code"
	@./internal/tools/check-generated.sh
	@./internal/tools/check-docs.sh
	@echo "== deploy"
	@$(MAKE) --no-print-directory check-deploy

.PHONY: check-openapi
check-openapi: ## Lint the OpenAPI documents (needs Node).
	cd tools/openapi && npm ci --ignore-scripts --no-audit --no-fund && npm run lint

# Go alone builds and checks everything but what is built of web/: that needs Node.
.PHONY: check-web
check-web: ## Check and test the sources of the web console, and that web/dist is built from them (needs Node).
	cd web && npm ci --ignore-scripts && npm test && npm run build
	@git diff --exit-code --stat -- web/dist && test -z "$$(git status --porcelain -- web/dist)" \
		|| { echo "web/dist is stale: commit what 'npm run build' made of it" >&2; exit 1; }

.PHONY: check-deploy
check-deploy: ## Check what is in deploy/, the Dockerfile and the shell scripts.
	cd tools/deploy && $(GO) mod tidy -diff
	cd tools/deploy && $(GO) tool -modfile=../lint/go.mod golangci-lint run ./...
	cd tools/deploy && $(GO) run . check ../..
	cd tools/deploy && $(GO) test -count=1 ./... # what it reads is in another module, which no cache looks at

.PHONY: check-image
check-image: ## Run what is in the image as the image is run, without an engine (Linux, root).
	./internal/tools/check-image.sh

.PHONY: rules
rules: ## Make the PrometheusRule of deploy/monitoring/alerts.yaml.
	cd tools/deploy && $(GO) run . rules ../..

.PHONY: release
release: ## Build tarballs, SBOMs and sums of VERSION (v1.2.3) into dist/.
	$(GO) run ./internal/tools/release -version '$(VERSION)' -out $(DIST)

.PHONY: check-release
check-release: ## Build a release twice, in different places, and compare.
	./internal/tools/check-release.sh

.PHONY: licenses
licenses: ## Check the licences of everything that is in the programs, and list them.
	$(GO) tool -modfile=tools/release/go.mod go-licenses check --ignore github.com/notebookd/notebookd \
		--disallowed_types forbidden,restricted,unknown ./cmd/server ./cmd/cloudsim ./cmd/notebookctl
	$(GO) tool -modfile=tools/release/go.mod go-licenses report --ignore github.com/notebookd/notebookd \
		./cmd/server ./cmd/cloudsim ./cmd/notebookctl 2>/dev/null

.PHONY: vuln
vuln: ## Look for known vulnerabilities in what the programs call.
	./internal/tools/vuln.sh

.PHONY: clean
clean: ## Remove what was built.
	rm -rf $(BIN) $(DIST) third_party
