PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := $(VENV)/tools
COMPILE := $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock'
.DEFAULT_GOAL := help
MINUTES := 10
PARTS := throughput latency
SIDE_BY_SIDE := --dist worksteal --numprocesses
ENGINE := consumer/engine/_native.abi3.so
CRATE := consumer/engine/rust
CARGO := $(shell command -v cargo 2>/dev/null)
SEED :=
SCENARIO :=
KAFKA := 3.3.2
FORMAT :=
CORE := -k 'not at_least_once' tests/live/test_exactly_once.py tests/live/test_late_requests.py
FAULTS := --only 'worker stopped past its session' --only 'leader of a partition killed' \
	--only 'coordinator of the group killed' --only 'coordinator of transactions killed' \
	--only 'answer to a commit lost' --only 'rebalance storm during restore'
BUILDER := docker
IMAGE := conversation-consumer
LAYOUT := build/image
OPTIONS :=
.PHONY: help demo check test test-4.2 test-brokers test-pythons engine engine-of-tests fuzz fuzz-http lint lint-engine format lock docs schemas dashboards picture screenshots bench soak deploy-check image sbom audit clean

help: ## Show this list
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

# One stamp per locked set: nothing is installed again until the lock changes.
$(VENV)/.demo: requirements/demo.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/demo.txt
	touch $@

$(VENV)/.test: requirements/test.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/test.txt
	touch $@

# Tools that see the locks have an environment of their own.
$(TOOLS)/.tools: requirements/tools.txt
	test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/tools.txt
	touch $@

demo: $(VENV)/.demo ## See the main job on an embedded broker, in about half a minute
	$(BIN)/python -m consumer demo

# The wheel's own build, in the folder of the sources. What is there goes first, so that a failure leaves nothing.
$(ENGINE): $(CRATE)/Cargo.toml $(CRATE)/Cargo.lock $(shell find $(CRATE)/src -name '*.rs' 2>/dev/null) | $(VENV)/.test
	rm -f $@
	$(BIN)/python -W ignore -c 'import setuptools; setuptools.setup()' --quiet build_rust --inplace
	test -f $@

engine: $(ENGINE) ## Build the native engine in place, which needs a Rust compiler

ifneq ($(CARGO),)
engine-of-tests: engine
else ifneq ($(CI),)
engine-of-tests:
	@echo 'CI tests the native engine, and there is no cargo to build it' >&2; exit 1
else
engine-of-tests: ; # the tests run on the Python engine
endif

check: lint ## Check style, types and layers, and run the tests without Kafka and browser, in under a minute
	$(BIN)/python -m pytest --quiet $(SIDE_BY_SIDE) 3 --hypothesis-profile check \
		-m 'not (browser or deep or kafka or slow)'

# On two cores: most of these tests wait for brokers most of the time.
test: lint engine-of-tests test-4.2 ## Run every test that can run on this machine
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) 6

# Brokers from 4.3 on lose markers of transactions, which lanes repair; here they have nothing to repair. A broker that
# other people run may be of any version, so the tests start one of their own.
test-4.2: $(VENV)/.test engine-of-tests ## Run the tests of transactions on Kafka 4.2, in about two minutes
	env -u KAFKA_BOOTSTRAP_SERVERS KAFKA_VERSION=4.2.2 $(BIN)/python -m pytest $(SIDE_BY_SIDE) 6 $(CORE)

# CI has one test on the oldest version; this is all that a version has to pass before the documents name it.
test-brokers: export KAFKA_VERSION := $(KAFKA)
test-brokers: export KAFKA_FORMAT := $(FORMAT)
test-brokers: $(VENV)/.test engine-of-tests ## Run the tests of transactions and some faults on Kafka KAFKA, with storage formatted by FORMAT
	env -u KAFKA_BOOTSTRAP_SERVERS $(BIN)/python -m pytest $(SIDE_BY_SIDE) 6 $(CORE)
	$(BIN)/python -m tests.live.faults --once $(FAULTS)

test-pythons: $(VENV)/.test ## Install the wheel on every supported Python that is found, and run the demo with each
	$(BIN)/python -m tests.pythons

lint: $(VENV)/.test lint-engine ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

lint-engine:
ifneq ($(CARGO),)
	cargo fmt --manifest-path $(CRATE)/Cargo.toml --check
	cargo clippy --quiet --locked --all-targets --manifest-path $(CRATE)/Cargo.toml -- -D warnings
endif

format: $(VENV)/.test ## Put the code into shape
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
ifneq ($(CARGO),)
	cargo fmt --manifest-path $(CRATE)/Cargo.toml
endif

docs: $(VENV)/.test ## Generate the pages of docs/reference from the code
	$(BIN)/python -m docs.generate

schemas: $(VENV)/.test ## Generate openapi.json and the contract of the topics from the Structs
	$(BIN)/python -m generate

dashboards: $(VENV)/.test ## Generate the dashboards and the PrometheusRule
	$(BIN)/python -m deploy.generate

picture: $(VENV)/.test ## Take the pictures of the dashboards on real Kafka, Prometheus and Chromium; five minutes
	$(BIN)/python -m tests.deploy.picture

screenshots: $(VENV)/.test ## Take the pictures of the live page on an embedded broker and Chromium; five minutes
	$(BIN)/python -m tests.web.screenshots

bench: $(VENV)/.test ## Measure PARTS on a real Kafka: throughput, latency and more
	$(BIN)/python -m tests.benchmarks $(PARTS)

soak: $(VENV)/.test ## Inject faults into a real Kafka and its workers for MINUTES
	$(BIN)/python -m tests.live.faults --minutes $(MINUTES)

fuzz: $(VENV)/.test engine ## Compare the engines for MINUTES on generated and damaged traffic, from SEED and SCENARIO if given
	$(BIN)/python -m tests.engine.fuzz --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(SCENARIO),--scenario $(SCENARIO))

fuzz-http: $(VENV)/.test ## Attack both ports with hostile bytes for MINUTES, from SEED if given
	$(BIN)/python -m tests.web.fuzz --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

deploy-check: $(VENV)/.test ## Prove deploy/ on a real API server, a simulated cluster and a built image (buildah, podman, Go)
	$(BIN)/python -m tests.deploy.binaries
	$(BIN)/python -m pytest tests/deploy -m 'deep or not deep'

# What the image says of itself, as git knows it. An address is given as others can use it, and without credentials.
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
SOURCE = $(shell git remote get-url origin 2>/dev/null | \
	sed -nE -e 's,^https://([^/@]*@)?,https://,p' -e 's,^(ssh://)?git@([^:/]+)[:/],https://\2/,p')
REVISION = $(or $(shell git describe --always --abbrev=40 --exclude='*' --dirty 2>/dev/null),unknown)
EPOCH = $(or $(shell git log -1 --format=%ct 2>/dev/null),946684800)
CREATED = $(shell TZ=UTC git log -1 --format=%cd --date=format-local:%FT%TZ 2>/dev/null)
BUILD = --file deploy/Dockerfile $(OPTIONS) \
	$(foreach name,VERSION SOURCE REVISION CREATED,--build-arg $(name)=$($(name))) --tag $(IMAGE):$(VERSION)

image: sbom ## Build the image with BUILDER, docker or buildah, as an OCI layout in LAYOUT; the same commit gives the same digest
	rm -rf $(LAYOUT)
ifeq ($(BUILDER),buildah)
	buildah bud --timestamp $(EPOCH) $(BUILD) .
	buildah push --quiet $(IMAGE):$(VERSION) oci:$(LAYOUT):$(VERSION)
else
	SOURCE_DATE_EPOCH=$(EPOCH) docker buildx build --provenance=false \
		--output type=oci,tar=false,dest=$(LAYOUT),rewrite-timestamp=true $(BUILD) .
endif

sbom: ## Write the bill of materials of the image to build/: its packages and crates
	mkdir -p build
	$(PYTHON) generate/bill.py >build/sbom.cdx.json

# Strict: a package whose vulnerabilities cannot be asked for, as with most mirrors, is a failure.
audit: $(TOOLS)/.tools ## Look for known vulnerabilities in the locks of the image, of its build and of the tools
	for lock in run build tools; do \
		$(TOOLS)/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements/$$lock.txt || exit 1; \
	done

lock: $(TOOLS)/.tools ## Resolve the dependencies again
	$(COMPILE) pyproject.toml -o requirements/run.txt
	$(COMPILE) --extra demo pyproject.toml -o requirements/demo.txt
	printf '%s\n' 'setuptools>=77' 'setuptools-rust>=1.10' | $(COMPILE) - -o requirements/build.txt
	printf '%s\n' 'uv' 'pip-audit>=2.9' | $(COMPILE) - -o requirements/tools.txt
	$(COMPILE) --extra demo --extra parquet --group dev pyproject.toml -o requirements/test.txt

clean: ## Remove the environment and all caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info $(CRATE)/target $(ENGINE)
