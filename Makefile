PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command 'make lock'
.DEFAULT_GOAL := help
MINUTES := 10
PARTS := throughput latency
# Most tests wait for brokers most of the time.
SIDE_BY_SIDE := --numprocesses 2 --dist worksteal
.PHONY: help demo test test-4.2 lint format lock dashboards picture bench soak deploy-check sbom clean

help: ## Show this list
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

# One stamp per locked set: nothing is installed again until the lock changes.
$(VENV)/.demo: requirements-demo.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-demo.txt
	touch $@

$(VENV)/.test: requirements-test.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-test.txt
	touch $@

demo: $(VENV)/.demo ## See the main job on an embedded broker, in about half a minute
	$(BIN)/python -m consumer demo

test: lint test-4.2 ## Run every test that can run on this machine
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

# Brokers from 4.3 on lose markers of transactions, which lanes repair; here they have nothing to repair. A broker that
# somebody else runs may be of any version, so the tests start one of their own.
test-4.2: $(VENV)/.test ## Run the tests of transactions on Kafka 4.2, in about two minutes
	env -u KAFKA_BOOTSTRAP_SERVERS KAFKA_VERSION=4.2.2 $(BIN)/python -m pytest $(SIDE_BY_SIDE) -k 'not at_least_once' \
		tests/live/test_exactly_once.py tests/live/test_late_requests.py

lint: $(VENV)/.test ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test ## Put the code into shape
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

dashboards: $(VENV)/.test ## Generate the dashboards and the PrometheusRule anew
	$(BIN)/python -m deploy.generate

picture: $(VENV)/.test ## Take the pictures of the dashboards anew, on real Kafka, Prometheus and Chromium; five minutes
	$(BIN)/python -m tests.deploy.picture

bench: $(VENV)/.test ## Measure PARTS on a real Kafka: throughput, latency and more
	$(BIN)/python -m tests.benchmarks $(PARTS)

soak: $(VENV)/.test ## Let faults befall workers on a real Kafka for MINUTES
	$(BIN)/python -m tests.live.faults --minutes $(MINUTES)

deploy-check: $(VENV)/.test ## Prove deploy/ on a real API server, a simulated cluster and a built image (buildah, podman, Go)
	$(BIN)/python -m tests.deploy.binaries
	$(BIN)/python -m pytest tests/deploy -m 'deep or not deep'

sbom: ## Write the bill of materials of the image's lock to build/
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	mkdir -p build
	$(BIN)/uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements \
		--output-reproducible --pyproject pyproject.toml --output-file build/sbom.cdx.json requirements.txt

lock: ## Resolve the dependencies anew
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(COMPILE) pyproject.toml -o requirements.txt
	$(COMPILE) --extra demo pyproject.toml -o requirements-demo.txt
	echo 'setuptools>=77' | $(COMPILE) - -o requirements-build.txt
	$(COMPILE) --all-extras pyproject.toml -o requirements-test.txt

clean: ## Remove the environment and all caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist *.egg-info
