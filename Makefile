# make demo: train, sweep and report on two CPU cores.
# make test: run the tests. make test-long: run their long forms. All first install into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# docs is a folder too.
.PHONY: docs install test test-long test-cluster coverage lint demo torture reference reference-embedded reference-seeds reference-photographs reference-cifar10 findings clean

install: $(STAMP)
	@echo 'Installed. Next:  source $(BIN)/activate  and then  bench train --method igct'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

# Two processes with one thread each: on a busy machine two threads run at a tenth of their speed.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# What a change is likely to break, in about ten minutes on two CPU cores.
test: $(STAMP)
	$(PYTEST) -m "not long and not cluster"

# Full presets, every moment of a fault, new interpreters, full-sized networks.
test-long: $(STAMP)
	$(PYTEST) -m "long and not cluster"

# Sweeps on a Slurm of two nodes and a Ray of three on this machine, some of which are killed (about
# twenty minutes). Slurm needs root, slurm-wlm and munge: tests/cluster/slurm.sh says how they are
# installed. What is missing is left out. ONLY=killed_node runs the tests with this in their name.
ONLY ?= test
test-cluster: $(STAMP)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs -m cluster -k '$(ONLY)' tests/cluster

# Both with the coverage of the three packages (in 3.11 about half as long again).
coverage: $(STAMP)
	$(PYTEST) -m "not cluster" --cov=bench --cov=methods --cov=metrics

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Kill every command at 200 random points and compare with undisturbed runs (about ten minutes).
# Then test hostile files with 5,000 examples per test instead of 60 (a quarter of an hour).
torture: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture --kills 200
	OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest -q tests/hostile

demo: $(STAMP)
	$(BIN)/bench train --suite demo
	$(BIN)/bench sweep --suite demo
	$(BIN)/bench report --suite demo

# Make the committed results under results/reference, in parts with their hours on two cores:
# reference-embedded 2, reference-seeds .25, reference-photographs 2, findings 2. The
# third needs the archive DATA, the last the others.
REFERENCE := results/reference
DATA ?= cifar10-jpeg.tar.xz
reference: reference-embedded reference-seeds reference-photographs findings

reference-embedded: $(STAMP)
	$(BIN)/bench train --suite reference
	$(BIN)/bench tune --suite reference --budget 8 --samples 120 --guidance 4,10
	$(BIN)/bench sweep --suite reference
	$(BIN)/bench report --suite reference
	sh benchmarks/commit_report.sh results/embedded/report $(REFERENCE)/embedded

reference-seeds: $(STAMP)
	$(BIN)/bench train --suite modes1d-seeds
	$(BIN)/bench sweep --suite modes1d-seeds
	$(BIN)/bench report --suite modes1d-seeds
	sh benchmarks/commit_report.sh results/modes1d-seeds/report $(REFERENCE)/modes1d-seeds

# CIFAR-10 (JPEG) at 16 x 16 pixels: make reference-photographs DATA=cifar10-jpeg.tar.xz
reference-photographs: $(STAMP)
	$(BIN)/bench data prepare $(DATA) --size 16 --resize box --dataset cifar16
	$(BIN)/bench train --suite cifar16
	$(BIN)/bench sweep --suite cifar16
	$(BIN)/bench report --suite cifar16
	sh benchmarks/commit_report.sh results/cifar16/report $(REFERENCE)/photographs

# The answered questions of docs/findings, after make reference-embedded and reference-photographs.
findings: $(STAMP)
	$(BIN)/python -m benchmarks.findings.pull
	$(BIN)/python -m benchmarks.findings.variants window
	$(BIN)/python -m benchmarks.findings.variants share
	$(BIN)/python -m benchmarks.findings.narrowing
	$(BIN)/python -m benchmarks.findings.spread
	$(BIN)/python -m benchmarks.findings.embedding
	$(BIN)/python -m benchmarks.findings.inversion
	$(BIN)/python -m benchmarks.findings.learnt

# All methods on CIFAR-10 (JPEG) with the small preset on one GPU (expected, not measured: at most an
# hour on an H100): make reference-cifar10 DATA=cifar10-jpeg.tar.xz
CIFAR := results/reference/cifar10-jpeg-small
reference-cifar10: $(STAMP)
	$(BIN)/bench data prepare $(DATA) --dataset cifar10-jpeg
	$(BIN)/bench train --suite cifar10-small --precision bf16-mixed
	$(BIN)/bench sweep --suite cifar10-small
	$(BIN)/bench report --suite cifar10-small
	mkdir -p $(CIFAR)/figures
	cp results/cifar10-jpeg-small/report/*.csv results/cifar10-jpeg-small/report/*.md \
		results/cifar10-jpeg-small/report/*.tex $(CIFAR)/
	cp results/cifar10-jpeg-small/report/figures/*.png $(CIFAR)/figures/

# The documentation as a site, build/site/index.html; broken links are errors.
docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
