# make demo   set everything up and run the main job: out.mp4 and out.png
#             (your own: make demo PHOTO=me.jpg DRIVE=clip.mp4)
# make from-nothing  draw people, train Psi_3d and Portrait4D-v2 on them, drive a photo and score it: a quarter of an hour
# make test   set everything up and run the tests
# make lint   ruff on everything, mypy on fourdface/
# make dev    set up for development only
# make docs   write what follows from other files again: pages of docs/, hashes of the embedded assets
# make sanitize     run the tests of the ops with the CPU kernels under the address and undefined-behaviour sanitizers
# make bench        time the ops on the CPU: native kernels against the torch references
# make bench-cuda   build, test and time the CUDA kernels; needs an NVIDIA GPU
#
# PYTHON chooses the interpreter (3.10 to 3.13), VENV the place of the virtual environment.

PYTHON ?= python3
VENV ?= .venv
PHOTO ?=
DRIVE ?=
BIN = $(VENV)/bin
# The CPU build of torch is a tenth of the CUDA one, so it is taken where there is no NVIDIA GPU; where it cannot be had
# (another platform, its index does not answer) pip takes what PyPI offers. `make TORCH= ...` leaves the choice to pip.
TORCH ?= $(if $(shell command -v nvidia-smi 2>/dev/null),,torch==2.13.0+cpu)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: demo from-nothing test dev lint docs sanitize bench bench-cuda clean

demo: $(VENV)/.installed
	$(BIN)/python examples/01_demo.py $(if $(PHOTO),--photo "$(PHOTO)") $(if $(DRIVE),--drive "$(DRIVE)")

from-nothing: $(VENV)/.installed
	$(MAKE) -C examples/reproduce $@ FOURD="$(abspath $(BIN)/fourd)" PYTHON="$(abspath $(BIN)/python)" \
		NOTHING="$(abspath runs/from-nothing)" $(if $(PHOTO),PHOTO="$(abspath $(PHOTO))") $(if $(DRIVE),DRIVE="$(abspath $(DRIVE))")

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/mypy fourdface

dev: $(VENV)/.installed-dev

sanitize: $(VENV)/.installed-dev
	$(BIN)/python scripts/sanitize_ops.py $(PYTEST_ARGS)

bench: $(VENV)/.installed
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python scripts/bench_ops.py $(BENCH_ARGS)

bench-cuda: $(VENV)/.installed-dev
	$(BIN)/python scripts/bench_cuda.py $(BENCH_ARGS)

docs: $(VENV)/.installed-dev
	$(BIN)/python scripts/generate_docs.py
	$(BIN)/python scripts/pin_assets.py

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("fourd needs Python 3.10 or newer: make PYTHON=python3.11" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH),-$(BIN)/python -m pip install -q --retries 1 --no-deps --extra-index-url $(TORCH_INDEX) $(TORCH) 2>/dev/null)

$(VENV)/.installed: setup.py | $(BIN)/python
	$(BIN)/python -m pip install -q -e .
	touch $@

$(VENV)/.installed-dev: setup.py | $(BIN)/python
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist *.egg-info
