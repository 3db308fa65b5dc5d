# Each target sets up all it needs in .venv, without root. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KERNELS := $(VENV)/.native
JOBS ?= 1
PEERS := build/peers
EXTRAS := demo,transformers,vision,efficientnet,hw,explore,cluster,docs,dev

# Two test processes of one thread each are faster than one of two threads, and a test's sums do not depend on either.
TEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
# What holds the native kernels to the eager ones and to the reference.
NATIVE_PARITY := tests/kernels tests/parity
# One thread: the network is so small that a second one costs more than it brings, most of all on a busy machine.
DEMO := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/vsquant table digits --html build/demo/report.html

# Builds the native tests in a folder of their own and runs them: $(call native_tests,folder,options)
define native_tests
PATH="$(CURDIR)/$(BIN):$$PATH"; \
cmake -S native -B $(1) -G Ninja -DVSQUANT_TESTS=ON -DVSQUANT_WERROR=ON $(2) > $(1).log || { cat $(1).log; exit 1; }; \
cmake --build $(1); ctest --test-dir $(1) --output-on-failure
endef
ARM := -DVSQUANT_TORCH=OFF -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
  '-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64;-cpu;max;-L;/usr/aarch64-linux-gnu'

define CHECK_PYTHON
$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { \
  echo "vsquant needs Python 3.10 to 3.13, not $$($(PYTHON) --version 2>&1)."; \
  echo "Name one that is installed:  make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
endef

.PHONY: help env native demo test data rtl lint docs speed bench sanitize neon isas ci lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

env: $(KERNELS) ## make .venv with the pinned packages and the native kernels (the other targets do it by themselves)

$(STAMP): pyproject.toml constraints.txt
	@$(CHECK_PYTHON)
	@echo "Installing the pinned packages into $(VENV) (a few minutes, once)"
	@$(PYTHON) -m venv $(VENV) || { echo "no virtual environment could be made: is Python's venv module (python3-venv) installed?"; exit 1; }
	@VSQUANT_BUILD=off PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

$(KERNELS): $(STAMP) $(shell find native -type f)
	@$(BIN)/python native/build_native.py $(if $(filter true,$(CI)),--require)
	@touch $@

native: ## build the native kernels and their tests in any checkout (JOBS compilers at a time), and run those tests
	@$(or $(wildcard $(BIN)/python),$(PYTHON)) native/build_native.py --require --jobs $(JOBS) -- -DVSQUANT_TESTS=ON
	@PATH="$(CURDIR)/$(BIN):$$PATH" ctest --test-dir build/native --output-on-failure | tail -n 4

demo: $(KERNELS) ## train a small network on real digits, quantize it, print the table, write a report
	@mkdir -p build/demo
	@$(DEMO)

test: $(KERNELS) ## all tests that need no outside data and no simulator of hardware
	@$(TEST) -m "not rtl"

data: $(KERNELS) ## the tests on real data; VSQUANT_DATA names its folder
	@: "$${VSQUANT_DATA:?VSQUANT_DATA must name the folder of real data}"
	@$(TEST) -m data

rtl: $(KERNELS) ## lint the RTL and simulate it against the bit-true models (Debian: iverilog, verilator)
	@$(TEST) -m rtl tests/rtl

lint: $(STAMP) ## ruff, mypy --strict, the layers, spelling
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/codespell

docs: $(STAMP) ## build the pages into build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir build/site
	@echo "build/site/index.html"

$(PEERS)/.installed: pyproject.toml constraints.txt
	@echo "Installing the libraries that are timed beside vsquant into $(PEERS) (some minutes, once)"
	@$(PYTHON) -m venv $(PEERS)
	@grep -v '^setuptools==' constraints.txt > $(PEERS)/constraints.txt
	@VSQUANT_BUILD=off CMAKE_ARGS="-DGGML_LLAMAFILE=ON -DGGML_NATIVE=ON" $(PEERS)/bin/python -m pip install -qq --disable-pip-version-check \
	  --no-binary ggml-python --constraint $(PEERS)/constraints.txt --editable '.[bench]'
	@touch $@

speed: $(KERNELS) $(PEERS)/.installed ## time kernels beside other libraries, on a quiet machine (CASES="--case 'linear*'" for a part)
	@$(PEERS)/bin/vsquant bench all --results benchmarks/results $(CASES)
	@$(BIN)/python tools/quote_results.py

bench: $(KERNELS) ## measure the README's tables and what a cell costs (hours; VSQUANT_DATA names the real data)
	@: "$${VSQUANT_DATA:?VSQUANT_DATA must name the folder of real data}"
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/tables.py
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/cell_cost.py
	@$(MAKE) --no-print-directory speed
	@$(BIN)/python tools/quote_results.py

ci: ## all that must pass before a change lands, each stage timed
	@$(CHECK_PYTHON)
	@$(PYTHON) tools/ci.py

sanitize: $(STAMP) ## native and parity tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@rm -rf build/sanitized && mkdir -p build/sanitized && cp -rs $(CURDIR)/src build/sanitized
	@rm -f build/sanitized/src/vsquant/kernels/_native.so
	@$(call native_tests,build/sanitize,-DVSQUANT_SANITIZE=ON -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python \
	  -DVSQUANT_OUTPUT=$(CURDIR)/build/sanitized/src/vsquant/kernels)
	@ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$(c++ -print-file-name=libasan.so):$$(c++ -print-file-name=libubsan.so)" \
	  $(TEST) -o pythonpath=build/sanitized/src $(NATIVE_PARITY)

neon: $(STAMP) ## the native tests for 64-bit Arm, in an emulator
	@mkdir -p build
	@$(call native_tests,build/neon,$(ARM))

isas: $(KERNELS) ## the parity tests with the instruction sets that `make test` has not used
	@for isa in $$($(BIN)/python -c 'from vsquant.kernels import native; print(*native.load().supported[1:])'); do \
	  echo "VSQUANT_ISA=$$isa"; VSQUANT_ISA=$$isa $(TEST) $(NATIVE_PARITY); done

lock: ## resolve constraints.txt anew
	@$(PYTHON) -m venv build/lock && build/lock/bin/pip install -qq --disable-pip-version-check uv
	@build/lock/bin/python tools/lock.py

clean: ## remove what the targets made, .venv aside
	@rm -rf $(KERNELS) src/vsquant/kernels/_native.so build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
