# Whence. Every target sets up what it needs; the second time that takes a second.
# Environments live in .venv/, one per room, each installed from that room's hashed lock.

PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .venv/uv/bin/uv)
UV_VERSION := 0.13.9
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate $(UPGRADE) --constraint .venv/all.lock pyproject.toml
TEST_LOCK := tests/requirements.lock
LOCKS := gateway/requirements.lock serving/requirements.lock serving/int8.lock training/requirements.lock training/jax.lock $(TEST_LOCK) tests/lint.lock tests/deploy.lock
RELEASE = $(shell $(PYTHON) -c 'import json; print(json.load(open("training/release/release.json"))["version"])')
GROUPS := test notebooks lint types proto deploy

export PYTHONPATH := $(CURDIR)
export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.PHONY: help deploy manifests run run-int8 test test-gateway test-serving test-training test-jax e2e page lint format types contracts bench proto lock lock-check clean setup

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Each environment is a stamp file that is newer than its lock. Byte code is made once, with all cores: where Python must
# not write its own (PYTHONDONTWRITEBYTECODE), each process would compile TensorFlow anew, ten seconds of work.
.venv/uv.ready:
	@command -v uv >/dev/null || { echo "==> uv $(UV_VERSION) into .venv/uv"; $(PYTHON) -m venv .venv/uv && .venv/uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); }
	@mkdir -p .venv && touch $@

define sync # name, locks
	@echo "==> environment .venv/$(1) from $(2)"
	@test -x .venv/$(1)/bin/python || $(UV) venv --quiet --python 3.11 .venv/$(1)
	@$(UV) pip sync --quiet --compile-bytecode --python .venv/$(1)/bin/python --require-hashes $(2)
	@touch $@
endef

.venv/gateway.ready: gateway/requirements.lock | .venv/uv.ready
	$(call sync,gateway,$<)
.venv/serving.ready: serving/requirements.lock | .venv/uv.ready
	$(call sync,serving,$<)
.venv/int8.ready: serving/int8.lock | .venv/uv.ready
	$(call sync,int8,$<)
.venv/test.ready: gateway/requirements.lock $(TEST_LOCK) | .venv/uv.ready
	$(call sync,test,gateway/requirements.lock $(TEST_LOCK))
.venv/training.ready: training/requirements.lock $(TEST_LOCK) | .venv/uv.ready
	$(call sync,training,training/requirements.lock $(TEST_LOCK))
.venv/jax.ready: training/jax.lock $(TEST_LOCK) | .venv/uv.ready
	$(call sync,jax,training/jax.lock $(TEST_LOCK))
.venv/bench-%.ready: tests/bench/peers/%.lock | .venv/uv.ready
	$(call sync,bench-$*,$<)
.venv/deploy.ready: gateway/requirements.lock $(TEST_LOCK) tests/deploy.lock | .venv/uv.ready
	$(call sync,deploy,gateway/requirements.lock $(TEST_LOCK) tests/deploy.lock)
.venv/lint.ready: tests/lint.lock | .venv/uv.ready
	$(call sync,lint,$<)

setup: .venv/gateway.ready .venv/serving.ready ## make the environments that `make run` needs

run: setup ## serve the page and the API on http://127.0.0.1:8080
	@exec .venv/gateway/bin/python -m serving.local

run-int8: setup .venv/int8.ready ## the same with the int8 engine: about twice as fast as bfloat16 on CPUs with VNNI
	@exec .venv/gateway/bin/python -m serving.local --engine openvino-int8

test: test-gateway test-serving test-training e2e page ## run the whole test suite

test-gateway: .venv/test.ready ## gateway, pixels, manifests: in an environment without TensorFlow
	.venv/test/bin/pytest tests/gateway tests/k8s

test-serving: .venv/training.ready ## the embedded model server
	.venv/training/bin/pytest tests/serving

test-training: .venv/training.ready ## the training pipeline and the released model
	.venv/training/bin/pytest tests/training

test-jax: .venv/jax.ready ## training in an environment without TensorFlow
	KERAS_BACKEND=jax .venv/jax/bin/pytest tests/training/test_model.py tests/training/test_finetune.py tests/training/test_without_tensorflow.py

e2e: .venv/test.ready setup ## gateway, model server and released model together
	.venv/test/bin/pytest tests/e2e

page: .venv/test.ready ## the web page in a real Chromium
	.venv/test/bin/pytest tests/page

bench: setup .venv/int8.ready .venv/training.ready .venv/bench-mosec.ready .venv/bench-litserve.ready ## measure Whence, its peers and the bare engines
	@test -d models/culture/$(RELEASE) || .venv/serving/bin/python -m training export
	@test -d models/culture-int8/$(RELEASE) || .venv/int8/bin/python -m training export --precision int8
	.venv/training/bin/python -m tests.bench compare

deploy: .venv/deploy.ready setup ## images, compose, several hosts, Prometheus: what a machine lacks is skipped, with its reason
	PATH="$(CURDIR)/.venv/deploy/bin:$$PATH" nice .venv/deploy/bin/pytest tests/k8s tests/deploy

manifests: ## write the PrometheusRule and the dashboard from k8s/monitoring/rules.yaml and generate.py
	$(PYTHON) k8s/monitoring/generate.py

lint: .venv/lint.ready ## ruff, codespell, yamllint
	.venv/lint/bin/ruff check .
	.venv/lint/bin/ruff format --check .
	.venv/lint/bin/codespell
	.venv/lint/bin/yamllint --strict docker-compose.yml k8s tests/k8s

format: .venv/lint.ready ## let ruff mend what it can
	.venv/lint/bin/ruff check --fix --quiet .
	.venv/lint/bin/ruff format .

types: .venv/lint.ready .venv/test.ready .venv/training.ready .venv/deploy.ready ## mypy --strict, each room with its own libraries
	.venv/lint/bin/mypy --python-executable .venv/test/bin/python gateway tests/gateway tests/hostile $(wildcard tests/bench/*.py)
	.venv/lint/bin/mypy --python-executable .venv/deploy/bin/python k8s/monitoring k8s/images tests/k8s tests/deploy
	.venv/lint/bin/mypy --python-executable .venv/training/bin/python serving training

contracts: .venv/training.ready .venv/test.ready ## who may import whom
	.venv/test/bin/lint-imports

proto: .venv/lint.ready ## regenerate the gateway's messages from gateway/wire/*.proto
	PATH="$(CURDIR)/.venv/lint/bin:$$PATH" .venv/lint/bin/python -m grpc_tools.protoc --proto_path=. --python_out=. --mypy_out=. $(wildcard gateway/wire/*.proto serving/server/wire/*.proto)

lock: .venv/uv.ready ## compile every room's lock from pyproject.toml, one set of versions for all
	@# What is locked today is where the common resolution starts, so that nothing moves unless asked: UPGRADE=--upgrade
	@cat $(LOCKS) > .venv/all.lock 2>/dev/null || true
	@$(UV) pip compile --quiet --universal --python-version 3.11 pyproject.toml --all-extras $(GROUPS:%=--group %) $(UPGRADE) --output-file .venv/all.lock
	$(LOCK) --extra gateway --extra tracing --output-file gateway/requirements.lock
	$(LOCK) --extra server --extra export --output-file serving/requirements.lock
	$(LOCK) --extra server --extra export --extra int8 --output-file serving/int8.lock
	$(LOCK) --extra server --extra export --extra int8 --extra training --group notebooks --output-file training/requirements.lock
	$(LOCK) --extra export --extra jax --extra training --output-file training/jax.lock
	$(LOCK) --group test --output-file $(TEST_LOCK)
	$(LOCK) --group lint --group types --group proto --output-file tests/lint.lock
	$(LOCK) --group deploy --output-file tests/deploy.lock

lock-check: lock ## the locks are what pyproject.toml asks for
	git diff --exit-code -- $(LOCKS)

clean: ## remove environments, exported models and caches
	rm -rf .venv models .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
