# Two commands are all the set-up: `make run` and `make test`. Everything lives in .venv and .tools.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := .tools
export PATH := $(CURDIR)/$(TOOLS)/usr/bin:$(CURDIR)/$(TOOLS)/usr/sbin:$(PATH)
unexport PYTHONDONTWRITEBYTECODE # with it each of the thousands of commands that the tests run compiles the package

.PHONY: help run real pictures stack dist test lint audit prose measures types layers unit wheel tools generate lock bench soak fuzz mutants screenshots clean
help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

run: $(READY) tools ## run this repository's own lane and serve its metrics until Ctrl-C
	$(BIN)/paropt-exporter --lane standard

stack: $(READY) tools ## a demo lane under real Prometheus and Alertmanager, on free ports, until Ctrl-C; no docker needed
	$(BIN)/python deploy/stack/stack.py

test: ## everything that must hold before a change lands: the tests, and beside them the other checks
	@$(MAKE) --no-print-directory --jobs=2 $(READY) tools
	@$(MAKE) --no-print-directory --jobs=2 --keep-going unit lint types layers wheel

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python .ci/prose.py
	$(BIN)/bandit -q -c pyproject.toml -r exporter 2> /dev/null

audit: $(READY) ## known advisories of all pinned packages, where the package index has them; says so if it was skipped
	$(BIN)/python .ci/audit.py $(AUDIT)

prose: $(READY) ## phrases that make text hard to read
	$(BIN)/python .ci/prose.py

measures: $(READY) ## names, prose and module sizes beside their goals
	$(BIN)/python .ci/measures.py

# A user's program is checked beside the installed wheel, since that is what users' checkers read.
types: $(READY) dist ## strict mypy on the package and the docs' examples; strict mypy and pyright on a program that uses it
	$(BIN)/mypy
	rm -rf build/types && $(BIN)/python -m venv --without-pip build/types
	$(BIN)/python -m pip --python build/types/bin/python install --quiet --disable-pip-version-check --no-compile --no-index --no-deps $(DIST)/*.whl
	$(BIN)/python -c "$(SITE)" > "$$(build/types/bin/python -c "$(SITE)")/dependencies.pth"
	$(BIN)/python .ci/doc_blocks.py build/types/blocks
	for version in 3.11 3.15; do $(BIN)/mypy --config-file= --strict --python-version $$version --python-executable build/types/bin/python \
	  --cache-dir build/types-cache tests/types/user_program.py build/types/blocks/*.py || exit 1; done
	$(BIN)/basedpyright --project tests/types --pythonpath build/types/bin/python
SITE := import sysconfig; print(sysconfig.get_path('purelib'))

layers: $(READY)
	$(BIN)/lint-imports

# Tests wait for processes and servers of their own most of the time: three at a time for each core. A file's tests stay
# together, since they share its servers. Tests that fail run once more, alone, as in CPython's own suite: then it is
# clear which need a fix of their timing, and `make test` fails only for those that fail twice. After another end than
# failures (1), such as an interrupt (2), some tests have not run.
# In a new clone one process rewrites the asserts of all test files (7 CPU seconds), which each worker would do otherwise.
WORKERS ?= $(shell expr 3 '*' $$(nproc))
TESTS ?= tests
PYTEST := $(BIN)/pytest -q -o cache_dir=build/pytest
unit: $(READY) tools ## every test, in parallel; `make unit WORKERS=1` runs one at a time, `TESTS=tests/cli` a part
	@rm -rf build/pytest && mkdir -p build
	@$(BIN)/python -m compileall -q exporter benchmarks tests/support tests/alert_stories
	@test -n "$$(find tests -name '*-pytest-*.pyc' -print -quit)" || $(PYTEST) --collect-only $(TESTS) > build/collected.log || true
	$(PYTEST) --durations=20 --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder $(TESTS) || { \
	  code=$$?; test $$code = 1 || exit $$code; \
	  echo "FLAKY unless they fail again, alone:" && $(PYTEST) --last-failed --last-failed-no-failures=none -v $(TESTS); }

# Files in the archives have the time of the last commit, so that the same commit gives the same bytes.
DIST := dist
SOURCE_DATE_EPOCH ?= $(or $(shell git log -1 --format=%ct 2> /dev/null),1580601600)
dist: export SOURCE_DATE_EPOCH := $(SOURCE_DATE_EPOCH)
dist: $(READY) ## build the sdist, the wheel from it, the SBOM and their sums: the files that a release publishes
	rm -rf $(DIST) && mkdir -p build
	$(BIN)/python -m build --no-isolation --outdir $(DIST) . > build/dist.log
	$(BIN)/python .ci/sbom.py > $(DIST)/$$(basename $(DIST)/*.tar.gz .tar.gz).cdx.json
	cd $(DIST) && sha256sum * > ../build/SHA256SUMS && mv ../build/SHA256SUMS . && cat SHA256SUMS

wheel: dist ## install the wheel in an empty venv and run from there
	rm -rf build/wheel && mkdir -p build/wheel
	$(PYTHON) -m venv --without-pip build/wheel/venv
	$(BIN)/python -m pip --python build/wheel/venv/bin/python install --quiet --disable-pip-version-check --no-compile $(DIST)/*.whl
	cd build/wheel && mkdir project && cd project && ../venv/bin/paropt-exporter --version \
	  && ../venv/bin/paropt-exporter generate --out . && ../venv/bin/paropt-exporter init --force \
	  && ../venv/bin/paropt-exporter check

tools: ## real Prometheus, Alertmanager and others, from Debian's packages, unpacked into .tools where the machine has none
	@.ci/debian-tools $(TOOLS) prometheus:prometheus prometheus:promtool prometheus-alertmanager:prometheus-alertmanager \
	  prometheus-pushgateway:prometheus-pushgateway prometheus-node-exporter:prometheus-node-exporter victoria-metrics:victoria-metrics \
	  libpcre2-32-0:fish fish:fish nginx:nginx strace:strace

REAL := build/real-projects
real: $(READY) ## init's lanes beside real projects' own commands; suites that use executors with ours; fetches from the package index
	mkdir -p $(REAL)/archives
	$(BIN)/python benchmarks/real_projects.py $(REAL)
	mkdir -p $(REAL)-suites/archives
	$(BIN)/python benchmarks/executor_suites.py $(REAL)-suites

generate: $(READY) ## rewrite what is generated: rules with their tests, config schema, reference pages
	$(BIN)/paropt-exporter generate --out .
	PYTHONPATH=tests $(BIN)/python -m alert_stories .

lock: ## resolve the dependencies again
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet pip-tools
	build/lock/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-annotate \
	  --output-file requirements.lock pyproject.toml requirements-dev.in

bench: $(READY) ## every performance figure, as a ratio against its peer
	$(BIN)/python benchmarks/run.py

screenshots: $(READY) tools ## draw each dashboard from a real run with Grafana's own libraries (needs npm and chromium)
	cd dashboards/pictures && npm ci --ignore-scripts --no-audit --no-fund --silent
	$(BIN)/python dashboards/pictures/take.py

pictures: $(READY) ## draw what a terminal shows of a lane, for the docs (needs tmux)
	$(BIN)/python docs/terminal_pictures.py

soak: $(READY) ## minutes of random faults over everything at once, replayed by their seed; then CPython's own executor tests, where the interpreter has them
	$(BIN)/python benchmarks/soak.py
	$(BIN)/python benchmarks/cpython_suite.py

fuzz: $(READY) ## 100,000 mutated requests, and 10,000 mutated configs and foreign texts of each kind; `FUZZ="--seed 7"` repeats a run
	$(BIN)/python benchmarks/fuzz.py $(FUZZ)

mutants: $(READY) tools ## how many faults in the alert rules their promtool tests notice
	PYTHONPATH=tests $(BIN)/python -m alert_stories.mutants

clean:
	rm -rf $(VENV) $(TOOLS) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
