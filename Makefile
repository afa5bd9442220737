# Every target is described by `make help`. All that is installed goes to .cache/, pinned and checksummed.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE ?= $(CURDIR)/.cache
export MILLRACE_CACHE := $(CACHE)
export GOTOOLCHAIN := local
export GOFLAGS := -buildvcs=false

BIN := bin/millrace
TOOLS := $(CACHE)/tools
UP_FLAGS ?=
DATA ?= .millrace
# Packages run two at a time: each may start a broker and a ClickHouse of its own.
TEST_FLAGS ?= -p 2 -timeout 20m

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

.PHONY: build
build: ## Build bin/millrace
	go build -o $(BIN) ./cmd/millrace

.PHONY: fetch
fetch: ## Bring the modules of Temporal's program, if it is not built, while others are compiled
	@compgen -G '$(CACHE)/temporal-*' > /dev/null || (cd internal/embedded/temporal && GOWORK=off nohup go list -deps . > /dev/null 2>&1 < /dev/null &)

.PHONY: up
up: fetch build ## Install what is missing, start the whole platform and stay in the foreground (UP_FLAGS, DATA)
	$(BIN) up --data $(DATA) $(UP_FLAGS)

.PHONY: down
down: ## End the platform that `make up` started
	$(BIN) down --data $(DATA)

.PHONY: install
install: build ## Bring the embedded servers into .cache/ (make up and make test do so by themselves)
	$(BIN) install

# A test that fails is run once more by itself: a failure that repeats ends the run, one that does not is shown at the end as flaky, and is a bug all the same.
# A package that panics or runs out of time is not given a second chance.
.PHONY: test
test: install $(TOOLS)/.built ## Install what is missing and run the tests of CI
	$(BIN) install stores iceberg-rest
	rm -f $(CACHE)/flaky.txt
	$(TOOLS)/gotestsum --format pkgname --format-hide-empty-pkg --rerun-fails=1 --rerun-fails-max-failures=4 --rerun-fails-report=$(CACHE)/flaky.txt --packages=./... -- $(TEST_FLAGS)
	@if [ -s $(CACHE)/flaky.txt ]; then echo "FLAKY, to be mended:"; cat $(CACHE)/flaky.txt; fi
	cd internal/embedded/temporal && go vet ./...
	cd internal/embedded/stores && go vet ./...

.PHONY: test-bigquery-cloud
test-bigquery-cloud: ## Run the BigQuery suite on a real project (GOOGLE_CLOUD_PROJECT and credentials; it pays for a few queries); says so if it was not run
	@if [ -z "$${GOOGLE_CLOUD_PROJECT:-}" ]; then echo "test-bigquery-cloud was NOT run: GOOGLE_CLOUD_PROJECT is not set (and credentials: gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS)"; \
	elif [ -z "$${GOOGLE_APPLICATION_CREDENTIALS:-}" ] && [ ! -f "$${CLOUDSDK_CONFIG:-$$HOME/.config/gcloud}/application_default_credentials.json" ]; then echo "test-bigquery-cloud was NOT run: there are no credentials (gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS)"; \
	else MILLRACE_TEST_BIGQUERY_CLOUD=1 go test -count=1 -timeout 60m -v ./lakehouse/bigquery; fi

.PHONY: test-stores
test-stores: build ## The lakehouse on every catalog and store by itself, then what a commit costs on each
	$(BIN) install stores iceberg-rest
	go test -count 1 -v ./lakehouse -run 'TestEveryCatalogAndStore|TestAServersAnswer|TestARefOnASnapshot' -bench BenchmarkCommit -benchtime 30x -timeout 15m

.PHONY: test-full
test-full: test e2e-full ## Tests of CI, then the long ones (docs/TESTING.md)

.PHONY: race
race: ## Run the tests with the race detector, but for those that start many processes
	go test -race -short $(TEST_FLAGS) $$(go list ./... | grep -vE '/(test|internal/embedded)')

$(TOOLS)/.built: internal/tools/go.mod internal/tools/go.sum
	mkdir -p $(TOOLS)
	cd internal/tools && GOBIN=$(TOOLS) go install tool
	touch $@

.PHONY: lint
lint: $(TOOLS)/.built ## Format, vet, lint; known vulnerabilities where the database can be reached
	@test -z "$$($(TOOLS)/gofumpt -l . | tee /dev/stderr)" || { echo "run make fmt"; exit 1; }
	$(TOOLS)/golangci-lint run --timeout 15m ./...
	@if out=$$(timeout 120 $(TOOLS)/govulncheck ./... 2>&1); then echo "$$out" | tail -n 3; \
	elif grep -qE 'vuln.go.dev|fetching vulnerabilities|connection refused|no such host|Forbidden|timeout' <<<"$$out"; then \
	echo "govulncheck was not run: its database cannot be reached from here"; else echo "$$out"; exit 1; fi

.PHONY: fmt
fmt: $(TOOLS)/.built ## Format the code
	$(TOOLS)/gofumpt -w .

.PHONY: bench
bench: build ## Measure ours beside its peers (docs/BENCHMARKS.md); results in test/bench/out
	go run ./test/bench

.PHONY: bench-compaction
bench-compaction: ## Rewrite 200 files of 5M rows (ROWS) into one as they are, sorted and in z-order, beside Spark (a JDK of 17 or later, mvn, python3; installs 0.5 GB)
	go run ./test/bench -target bench-compaction -reps 1 $(if $(ROWS),-rows $(ROWS))

.PHONY: bench-iceberg-sink
bench-iceberg-sink: ## The Iceberg sink beside a plain Parquet write and beside Kafka Connect's Iceberg sink (a JDK of 17 or later, mvn; ROWS)
	go run ./test/bench -target bench-iceberg-sink $(if $(ROWS),-rows $(ROWS))

.PHONY: bench-flink
bench-flink: ## KPIs and fraud on the engine beside Apache Flink, Avro and JSON, on one Apache Kafka (a JDK of 17 or later, mvn; ROWS)
	go run ./test/bench -target bench-flink $(if $(ROWS),-rows $(ROWS))

.PHONY: e2e
e2e: build ## The path end to end on both brokers: counts, sums, kill -9 of all roles
	go run ./test/e2e

.PHONY: e2e-full
e2e-full: build ## The acceptance drills: 200,000 events, each child killed, broker and stores away for 60 s
	go run ./test/e2e -full

.PHONY: peers
peers: build ## Read the platform's data with PyIceberg, DuckDB and Confluent's Python client
	test/peers/run.sh

.PHONY: drill-maintain
drill-maintain: build ## Maintenance of a table that is committed to every second: file count, commit gaps, rows
	go run ./test/drills/maintain

.PHONY: drill-reconcile
drill-reconcile: build ## Rows are deleted and doubled in ClickHouse, a table is rolled back: Reconcile names and mends exactly those
	go run ./test/drills/reconcile

.PHONY: drill-erase
drill-erase: ## A thousand persons are erased from ROWS rows (1000000; 20000000 is the full scale); other engines look for them
	go run ./test/drills/erase -rows $(or $(ROWS),1000000)

.PHONY: drill-nights
drill-nights: build $(if $(SHOTS),browser) ## Nights of a minute: three missed ones are made up for in order, a failed one is repaired (SHOTS=dir: pictures of the Temporal UI)
	$(if $(SHOTS),cd test/ui && $(NPM) ci --no-audit --no-fund --loglevel error)
	go run ./test/drills/nights $(if $(SHOTS),-shots $(SHOTS))

.PHONY: drill-engine
drill-engine: ## The stream worker is killed KILLS times (20; 200 is the full scale) on Apache Kafka, four workers restart under load, a state outgrows its bound (KEYS, 1000000; 10000000)
	go run ./test/drills/engine -kills $(or $(KILLS),20)
	go run ./test/drills/engine -kills $(or $(KILLS_KIP848),2) -protocol consumer
	go run ./test/drills/engine -rolling
	go run ./test/drills/engine -keys $(or $(KEYS),1000000) -state-bytes $(or $(STATE_BYTES),64MiB) -rate 2000

.PHONY: e2e-latency
e2e-latency: ## From an event to its alerts and KPIs, at 70 % of the highest rate with a flat lag (FOR, 60s)
	go run ./test/drills/latency -for $(or $(FOR),60s)

.PHONY: drill-spike
drill-spike: build ## Ten times the rate for SPIKE_FOR (30s; 2m is the full scale): nothing lost, no 5xx, the lag is gone again
	go run ./test/drills/spike -spike-for $(or $(SPIKE_FOR),30s)

.PHONY: histories
histories: ## Record the workflow histories that the replay tests read, on a real Temporal
	go test ./workers -run 'OnARealTemporal|TestPublishTableMoves' -update

.PHONY: docs
docs: build ## Write the reference pages that are generated from code
	go test ./internal/cli -run TestReferencePagesAreCurrent -update
	go generate ./event/schema

.PHONY: clean
clean: ## Remove what was built (not the caches and not the data)
	rm -rf bin test/bench/out

# The dashboard. Its build is committed (api/ui/dist), so that nothing but these targets needs Node; what npm fetches is kept in .cache/npm.
NPM := npm_config_cache=$(CACHE)/npm npm
UI := api/ui

$(UI)/node_modules/.installed: $(UI)/package-lock.json $(UI)/.npmrc
	cd $(UI) && $(NPM) ci --no-audit --no-fund && touch node_modules/.installed

.PHONY: ui
ui: $(UI)/node_modules/.installed ## Build the dashboard anew: types from api/openapi.yaml, then api/ui/dist
	cd $(UI) && npm run types && npm test && npm run build

.PHONY: ui-check
ui-check: $(UI)/node_modules/.installed ## Prove that the dashboard's committed types and build are what their sources give
	cd $(UI) && npm test && tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && npx tsc \
	&& (cd openapi && npx openapi-typescript ../../openapi.yaml --alphabetize --output "$$tmp/schema.d.ts") && diff -u src/schema.d.ts "$$tmp/schema.d.ts" \
	&& npx vite build --logLevel warn --outDir "$$tmp/dist" && diff -rq dist "$$tmp/dist" && echo "the dashboard's types and build are current"

# Chromium from the system's packages, where there is none and it may be installed; else the programs that need it say what to do.
.PHONY: browser
browser:
	@[ -n "$${CHROMIUM:-}" ] || command -v chromium chromium-browser google-chrome > /dev/null || \
	{ [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && echo "installing Chromium" && apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-liberation > /dev/null; } || true

.PHONY: ui-test
ui-test: build browser ## Drive the dashboard in Chromium: every page, both widths, dark and light, keyboard, restart, axe (DASHBOARD=url: of a running platform)
	cd test/ui && $(NPM) ci --no-audit --no-fund --loglevel error && node run.mjs

.PHONY: observability-check
observability-check: build ## Check dashboards, recording and alert rules, then have a real Prometheus watch a platform for a minute
	deploy/observability/check.sh

.PHONY: terraform-check
terraform-check: ## Check the Terraform code with a real terraform (1.9 or later; TERRAFORM=path) and recorded provider schemas: no cloud, no registry
	cd terraform/check && go vet . && go run .

.PHONY: peers-lakehouse
peers-lakehouse: build ## PyIceberg, DuckDB, Polars and Spark read the lakehouse as we do, after every kind of change (test/peers/lakehouse)
	test/peers/lakehouse/run.sh

.PHONY: peers-clients
peers-clients: build browser ## The real SDKs deliver a shopping session through 429, 500, resets and timeouts; docs/producers.md's programs run (test/peers/clients)
	go run ./test/peers/clients
