# make demo    annotate the drawings in examples/images, and show what was found
# make test    all tests
# make lint    ruff and mypy
# make lint-deploy    what is in deploy/: Dockerfile, compose file, Kubernetes, scripts, alerts, dashboard
# make faults  random faults thrown into running jobs (FAULTS=300 on each database, SEED=…, DB=…): is anything lost or doubled?
# make bench   the null model on generated images, on both databases: what everything but the model costs
# make bench-feeding   annotate end to end against loader and engine alone: how well the engine is fed
# make bench-engine      the engine against transformers' generate on this CPU
# make bench-precision   bfloat16 against float32, for the engine and for transformers
# make docs    the documentation as a site in site/; make docs-serve shows it at http://127.0.0.1:8000 and follows changes
# make clean   remove what these have made

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo-output
DEMO_DB := --db sqlite:///$(DEMO)/kosmograph.db

# every command here starts many Pythons: let them keep what they compile
unexport PYTHONDONTWRITEBYTECODE

DCLINT := dclint@3.1.0
SCRIPTS := .ci/run $(wildcard deploy/*.sh deploy/slurm/*.sbatch deploy/kubernetes/overlays/*/*.sh)

FAULTS ?= 300
DB ?= both

.PHONY: demo test lint lint-deploy faults bench bench-feeding bench-engine bench-precision docs docs-serve clean

# what `make demo` needs, and what the rest needs; only what is imported is compiled, which saves a minute
.venv/demo: EXTRA := worker
.venv/dev: EXTRA := dev
.venv/docs: EXTRA := docs
.venv/demo .venv/dev .venv/docs: pyproject.toml constraints.txt setup.py worker/resample.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	@echo "installing kosmograph[$(EXTRA)] into .venv: some minutes, most of them for torch ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --no-compile --constraint constraints.txt --editable '.[$(EXTRA)]'
	@touch $@

demo: .venv/demo
	@mkdir -p $(DEMO)
	$(BIN)/kosmograph annotate examples/images --model demo --verify --job demo $(DEMO_DB)
	$(BIN)/kosmograph sql "SELECT image_id, caption FROM captions WHERE job = 'demo' ORDER BY uri" $(DEMO_DB)
	$(BIN)/kosmograph sql "SELECT image_id, phrase, px1, py1, px2, py2, score, trust FROM groundings WHERE job = 'demo' ORDER BY uri, entity LIMIT 12" $(DEMO_DB)
	$(BIN)/kosmograph show examples/images/scan.tiff --save $(DEMO)/scan.png $(DEMO_DB)

test: .venv/dev
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 6 --dist worksteal --durations 20

lint: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# what is not found here (npx, promtool) is said, and left out
lint-deploy: .venv/dev
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/shellcheck $(SCRIPTS)
	@mkdir -p build
	@for overlay in deploy/kubernetes/overlays/*; do \
		echo "kubectl kustomize $$overlay | kubernetes-validate --strict"; \
		$(BIN)/kubectl kustomize $$overlay >build/overlay.yaml && $(BIN)/kubernetes-validate --strict --quiet build/overlay.yaml || exit 1; \
	done
	@if command -v npx >/dev/null; then echo "dclint deploy/compose.yaml"; npx --yes $(DCLINT) --max-warnings 0 deploy/compose.yaml; \
		else echo "note: no npx here; the compose file is not linted by $(DCLINT)"; fi
	@if command -v promtool >/dev/null; then cd deploy/prometheus \
		&& promtool check config prometheus.yml && promtool check rules alerts.yml && promtool test rules alerts.test.yml; \
		else echo "note: no promtool here (Debian: prometheus); alerts and dashboard queries are not checked"; fi
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/deploy/test_dashboard.py

faults: .venv/dev
	$(BIN)/python -m tests.faults.campaign.run --faults $(FAULTS) --db $(DB) $(if $(SEED),--seed $(SEED))

bench: .venv/dev
	$(BIN)/python -m benchmarks.scale

bench-feeding: .venv/dev
	$(BIN)/python -m benchmarks.feeding

bench-engine: .venv/dev
	$(BIN)/python -m benchmarks.engine

bench-precision: .venv/dev
	$(BIN)/python -m benchmarks.precision

docs docs-serve: export NO_MKDOCS_2_WARNING := 1
docs: .venv/docs
	$(BIN)/python -m mkdocs build --strict

docs-serve: .venv/docs
	$(BIN)/python -m mkdocs serve

clean:
	rm -rf .venv $(DEMO) build site *.egg-info worker/_resample*.so .mypy_cache .pytest_cache .ruff_cache .hypothesis
