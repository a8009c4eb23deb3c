# `make demo` and `make test` do everything by themselves on Debian and Ubuntu; `make help` lists the rest.
# Everything is built in .build/, but for the engine: that is the user's own, in her data folder, as the plugin makes it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= /usr/bin/python3
BUILD := $(CURDIR)/.build
TOOLS := $(BUILD)/tools/bin
VERSION = $(shell sed -n 's/^version=//p' metadata.txt)
ZIP = dist/deepscape-$(VERSION).zip
# Of the engine, e.g. EXTRAS=openvino; given on the command line alone, for the environment may know others of that name.
EXTRAS =
BENCH ?= $(wildcard tests/benchmarks/*/run.py)

# Tests meet the managed engine, whatever the developer has set for her own QGIS.
unexport DEEPSCAPE_ENGINE_PYTHON PYTHONHOME PYTHONPATH
export DEEPSCAPE_UV = $(TOOLS)/uv

SETUP = $(PYTHON) tasks/run_setup.py
ENGINE = $(shell $(SETUP) python)
ENGINE_ENV = PYTHONPATH=$(BUILD)/plugins:$(BUILD)/engine-test
QGIS_ENV = PYTHONPATH=$(BUILD)/plugins QGIS_PLUGINPATH=$(BUILD)/plugins QT_QPA_PLATFORM=offscreen \
	XDG_CONFIG_HOME=$(BUILD)/qgis-config QGIS_CUSTOM_CONFIG_PATH=$(BUILD)/qgis-config XDG_RUNTIME_DIR=$(BUILD)/run
COMPILE = $(TOOLS)/uv pip compile --universal --python-version 3.10 --generate-hashes --upgrade --no-emit-index-url \
	--no-emit-find-links --no-annotate --custom-compile-command "make lock" --quiet
PYTEST = python -m pytest -m "not gpu"

.PHONY: help demo demo-buildings test test-engine test-qgis test-end-to-end lint typecheck format bench scan package lock \
	apt engine testenv link clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

demo: apt engine link ## Train, map and assess the demo scene; results in demo/output/
	$(QGIS_ENV) $(PYTHON) demo/run.py

demo-buildings: apt engine link ## Map buildings on an orthophoto and assess it; results in demo/output-buildings/
	$(QGIS_ENV) $(PYTHON) demo/buildings.py

test: ## All three test suites; fails when one of them does
	@failed=""; \
	for suite in test-engine test-qgis test-end-to-end; do \
		$(MAKE) --no-print-directory $$suite || failed="$$failed $$suite"; \
	done; \
	[ -z "$$failed" ] || { echo "failed:$$failed"; exit 1; }

test-engine: testenv ## The engine without QGIS, in the engine's environment
	$(ENGINE_ENV) $(dir $(ENGINE))$(PYTEST) tests/engine

test-qgis: testenv ## Algorithms and dialogs in QGIS, mostly with a fake worker
	$(QGIS_ENV) $(BUILD)/qgis-env/bin/$(PYTEST) tests/qgis

test-end-to-end: testenv ## qgis_process with the real worker
	$(QGIS_ENV) $(BUILD)/qgis-env/bin/$(PYTEST) tests/end_to_end

lint: $(TOOLS)/uv ## Style, formatting and types
	@failed=0; \
	$(TOOLS)/ruff check . || failed=1; \
	$(TOOLS)/ruff format --check . || failed=1; \
	$(MAKE) --no-print-directory typecheck || failed=1; \
	exit $$failed

typecheck: engine link ## mypy, strict, on engine/ models/ tasks/
	cd $(BUILD) && MYPYPATH=plugins $(TOOLS)/mypy --config-file ../pyproject.toml --cache-dir mypy \
		--python-executable $(ENGINE) -p deepscape.engine -p deepscape.models -p deepscape.tasks

format: $(TOOLS)/uv ## Format the sources and sort their imports
	$(TOOLS)/ruff check --fix --quiet . || true
	$(TOOLS)/ruff format .

bench: testenv ## Benchmarks (minutes to hours); BENCH=path runs one
	@for script in $(BENCH); do OMP_WAIT_POLICY=PASSIVE $(ENGINE_ENV) $(ENGINE) $$script; done

package: ## Build the plugin's zip from the last commit
	mkdir -p dist
	git archive --prefix=deepscape/ --output=$(ZIP) HEAD
	@ls -l $(ZIP)

scan: $(TOOLS)/uv package ## Scan the built zip as plugins.qgis.org does; any finding fails
	rm -rf $(BUILD)/scan && mkdir -p $(BUILD)/scan && $(PYTHON) -m zipfile -e $(ZIP) $(BUILD)/scan
	$(TOOLS)/bandit --quiet --recursive $(BUILD)/scan/deepscape 2> >(grep -vE "Test in comment|nosec encountered" >&2)
	cd $(BUILD)/scan && $(TOOLS)/detect-secrets scan --all-files deepscape > secrets.json
	@$(PYTHON) -c 'import json, sys; found = json.load(open("$(BUILD)/scan/secrets.json"))["results"]; \
		print("detect-secrets:", found or "no finding"); sys.exit(bool(found))'

lock: $(TOOLS)/uv ## Pin the engine's packages and its extras anew: engine.in -> engine.lock
	cd tasks/environment && $(COMPILE) --excludes engine-excludes.in --output-file engine.lock engine.in
	cd tasks/environment && $(COMPILE) --constraints engine.lock --no-emit-package numpy \
		--no-emit-package openvino-telemetry --output-file openvino.lock openvino.in

apt: ## Install QGIS, Xvfb and venv by apt where they are missing
	@.ci/system-packages

engine: $(TOOLS)/uv ## Set up the engine's environment, as the plugin does (a second when it is there); EXTRAS=openvino adds that
	@$(SETUP) install $(if $(EXTRAS),--extras $(EXTRAS))

testenv: apt engine link $(BUILD)/engine-test/.done $(BUILD)/qgis-env/.done ## What the tests need beyond the engine
	@mkdir -p -m 700 $(BUILD)/run

link: ## Make .build/plugins/deepscape, the folder that QGIS and the tests load
	@mkdir -p $(BUILD)/plugins && ln -sfn ../.. $(BUILD)/plugins/deepscape

$(TOOLS)/uv: tests/requirements-tools.txt | apt
	$(PYTHON) -m venv --clear $(BUILD)/tools
	$(TOOLS)/python -m pip install -qq --requirement $<
	@touch $@

$(BUILD)/engine-test/.done: tests/requirements-engine.txt | engine
	rm -rf $(BUILD)/engine-test
	$(TOOLS)/uv pip install --quiet --python $(ENGINE) --target $(BUILD)/engine-test --requirement $<
	@touch $@

$(BUILD)/qgis-env/.done: tests/requirements-qgis.txt | apt
	$(PYTHON) -m venv --clear --system-site-packages $(BUILD)/qgis-env
	$(BUILD)/qgis-env/bin/python -m pip install -qq --requirement $<
	@touch $@

clean: ## Remove .build, dist and the demo's output (the engine stays: tasks/run_setup.py remove)
	rm -rf $(BUILD) dist demo/output demo/output-buildings
