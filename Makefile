# The two commands that a newcomer needs: `make demo` and `make test`. Everything lives in .venv; nothing needs root.
SHELL := /bin/bash
UV_VERSION := 0.13.8
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test test-kubernetes unit lint bench bench-swarm bench-kubernetes soak lock clean
.PHONY: testbed test-images swarm-testbed swarm-up swarm-down kube-testbed kube-up kube-down

# requirements.lock is uv's lock file in its form without registry addresses: names, versions, hashes.
.venv/.installed: requirements.lock pyproject.toml
	@echo "installing into .venv; the first time takes a minute"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	@$(BIN)/uv pip sync --quiet --require-hashes requirements.lock
	@$(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@

lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	  --group dev --group example pyproject.toml -o requirements.lock

# Most tests wait, and those on clusters most of all: they run beside the others, one cluster after the other.
KUBERNETES_TESTS ?= tests
test: .venv/.installed lint
	@log=$$(mktemp); { $(BIN)/pytest -m "swarm and not kubernetes"; on_swarm=$$?; \
	$(BIN)/pytest -m kubernetes $(KUBERNETES_TESTS); there=$$?; exit $$((on_swarm || there)); } >$$log 2>&1 & clusters=$$!; \
	$(BIN)/pytest -m "not swarm and not kubernetes"; here=$$?; wait $$clusters; there=$$?; \
	echo "those on a Swarm, and then those on a Kubernetes, at the same time:"; cat $$log; \
	rm $$log; exit $$((here || there))

# The conformance suite, and that all objects are taken, on a bed of this version alone: `make test-kubernetes VERSION=1.36`.
VERSION ?= 1.34
test-kubernetes: kube-testbed
	$(BIN)/python -m tests.conformance.versions $(VERSION)

# In four processes even on two cores: some wait.
unit: .venv/.installed
	$(BIN)/pytest -n 4 tests/unit

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache

# What tests on a real Swarm and a real Kubernetes need: root and Debian 12. Nothing is installed but what Debian has in its
# packages; Docker and Kubernetes lie in directories of their own. See docs/testbed.md.
TESTBED_PACKAGES := iproute2 util-linux debian-archive-keyring
testbed: swarm-testbed kube-testbed

test-images: .venv/.installed
	@dpkg --status $(TESTBED_PACKAGES) >/dev/null 2>&1 || { apt-get update && apt-get install -y $(TESTBED_PACKAGES); }
	$(BIN)/python -m testbed.images
	$(BIN)/python -m testbed.rabbitmq

swarm-testbed: test-images
	$(BIN)/python -m testbed.swarm prepare

kube-testbed: test-images
	$(BIN)/python -m testbed.kubernetes prepare

swarm-up: swarm-testbed
	$(BIN)/python -m testbed.swarm up
	$(BIN)/python -m testbed.swarm load

swarm-down:
	$(BIN)/python -m testbed.swarm down

# The first time takes ten minutes: Kubernetes is built.
kube-up: kube-testbed
	$(BIN)/python -m testbed.kubernetes up
	$(BIN)/python -m testbed.kubernetes load

kube-down:
	$(BIN)/python -m testbed.kubernetes down

demo: .venv/.installed
	$(BIN)/python examples/warehouse/demo.py

bench: .venv/.installed
	$(BIN)/python -m bench

# On the test bed's Swarm (make swarm-up), against plain Swarm in the same run; half an hour.
bench-swarm: .venv/.installed
	$(BIN)/python -m bench swarm
	$(BIN)/python -m bench.swarm_loss

# On the test bed's Kubernetes (make kube-up), against plain Kubernetes in the same run; an hour.
bench-kubernetes: .venv/.installed
	$(BIN)/python -m bench kubernetes-step kubernetes-many kubernetes-controller
	$(BIN)/python -m bench.kubernetes_loss

# Hours: every campaign of faults with its full numbers; writes docs/soak.md.
soak: .venv/.installed
	$(BIN)/python -m bench.soak

clean:
	rm -rf .venv .cache
