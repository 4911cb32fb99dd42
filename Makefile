# The project's commands. `make` lists them.

# Whatever is slow to build is kept outside the clone, keyed by what it is built from: the compiler and the packages of the lock file.
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/autonomy
LOCK_KEY := $(shell (rustc --version; grep '^checksum' Cargo.lock) 2>/dev/null | cksum | cut -d' ' -f1)
export CARGO_TARGET_DIR ?= $(CACHE)/target-$(LOCK_KEY)
export CARGO_TERM_PROGRESS_WHEN ?= never
BIN := $(CARGO_TARGET_DIR)/debug

# Options of `make demo`.
ONCE ?=
SALES ?= 51000
LISTEN ?= 127.0.0.1:8080
DATA_DIR ?= .autonomy/demo
# `make fuzz SECONDS=600`
SECONDS ?= 60
# `make images IMAGES="operator runtime"`
IMAGES ?=

.DEFAULT_GOAL := help
.PHONY: help setup build images demo test conformance fuzz e2e bench bench-worker lint crds cluster cluster-down clean

help: ## List the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: ## Install what is needed: PostgreSQL, nats-server, for tests versitygw (once, quietly)
	@scripts/setup

build: setup ## Build all binaries
	@scripts/quietly "building (the first time takes some minutes)" cargo build --locked --workspace --bins

images: setup ## Build the container images, or those in IMAGES; PROFILE=release optimises, images/README.md tells more
	@images/build $(IMAGES)

demo: build ## Run the retail loyalty case and stay up; ONCE=1 ends with the summary, SALES=n sets its size
	@$(BIN)/retail-loyalty demo $(if $(ONCE),--once) --sales $(SALES) --listen $(LISTEN) --data-dir $(DATA_DIR)

test: lint ## Run every check and every test, against real PostgreSQL, NATS and (where one can be had) Kubernetes
	@scripts/prometheus >/dev/null
	cargo test --locked --workspace --no-fail-fast
	@conformance/run
	@runtime/api/fuzz/run $(SECONDS)
	@e2e/run --if-possible

conformance: build ## Hold what the object API does against its OpenAPI and AsyncAPI documents, with Spectral and schemathesis
	@conformance/run

fuzz: setup ## Fuzz the object API's parsers, SECONDS=60 each
	@runtime/api/fuzz/run $(SECONDS)

e2e: build ## Run the tests against a real Kubernetes: our own, or KUBECONFIG's; KEDA=0 leaves scaling by lag out, NETWORK_POLICIES=1 enforces them
	@e2e/run

bench: build ## Measure the object API beside parallel COPY and its peers; writes bench/RESULTS.md (a quarter of an hour)
	@bench/run

bench-worker: build ## Measure the worker beside a plain consumer in Python; writes bench/worker/RESULTS.md (some minutes)
	@bench/worker/run

lint: build ## Check formatting, lints, licences and the generated CRDs
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --test chart --test kubernetes -- -D warnings
	@scripts/cargo-deny check bans licenses sources
	@$(BIN)/crdgen --check

crds: build ## Write the CRDs into the chart
	$(BIN)/crdgen

cluster: ## Start a real Kubernetes of one node on this machine (the first time takes some minutes); nothing if KUBECONFIG names one
	@e2e/cluster/up

cluster-down: ## End that Kubernetes and leave nothing of it behind
	@e2e/cluster/down

clean: ## Remove the demo's data and this lock file's build folder
	rm -rf .autonomy $(CARGO_TARGET_DIR)
