# make demo    five workers and a 4-bit summariser answer four questions about real DICOM images
# make serve   the same, and it stays up until Ctrl-C
# make test    every test, with its own set-up
# make test-ray  a panel on a Ray cluster of this machine; installs consilium[ray]
# make test-inspect  inspect_ai asks a panel, from an environment of its own in build/inspect
# make fuzz    hostile bytes for all that reads a caller's: SECONDS=60, or INPUTS=100000
# make soak    a gateway under load for half an hour: MINUTES=30
# make check   formatting, lint, types
# make clean   removes all of it again, the cache folder included
#
# Needs Python 3.11 to 3.14 with venv (make PYTHON=python3.12 takes another than python3), and git.
# With a GPU the CUDA builds are installed, without one the CPU builds. Torch's CPU wheel comes from
# the package index that CONSILIUM_TORCH_INDEX names, else from where pip is told to find links
# (PIP_FIND_LINKS, pip's own settings), else from PyTorch's own index. A .venv that is there stays
# with the Python that it was made by.

# Where it is set, four engines and every test would compile the same thousands of files each time.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
# Those that vLLM's and torch's wheels exist for.
FITS := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))
BUILD := $(if $(shell nvidia-smi -L 2>/dev/null),gpu,cpu)
READY := .venv/.ready-$(BUILD)
CACHE := $(or $(CONSILIUM_CACHE),$(HOME)/.cache/consilium)
# Only for torch itself: its siblings are the usual index's (models/cpu_torch.py).
TORCH_FROM = $(if $(CONSILIUM_TORCH_INDEX),echo --extra-index-url $(CONSILIUM_TORCH_INDEX),\
	.venv/bin/python -m pip config list | grep -q find-links || \
	echo --extra-index-url https://download.pytorch.org/whl/cpu)
# --no-compile: of 23,000 files a fraction is ever imported, and Python compiles those as they are.
PIP := .venv/bin/python -m pip --disable-pip-version-check install --quiet --no-compile \
	--constraint constraints/$(BUILD).txt

.PHONY: demo serve test test-ray test-inspect fuzz soak check clean environment

demo: environment
	@.venv/bin/consilium demo

serve: environment
	@.venv/bin/consilium serve

# What waits and what computes share the cores, so there is one process more than cores; a file's
# tests stay together, for its fixtures. What counts on its time, and the real panel, which takes
# every core, come last and alone. Two processes that each start a thread for every core stand in each
# other's way: a fit took twenty times as long.
test: environment
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -rs --dist=loadfile \
		--numprocesses=$$(.venv/bin/python -c "import os; print(min(os.cpu_count() + 1, 4))") \
		-m "not alone"; status=$$?; \
	.venv/bin/python -m pytest -rs -m alone && exit $$status

# Apart: 750 MB that nothing else here needs.
test-ray: environment
	@$(PIP) --editable '.[ray]'
	@.venv/bin/python -m pytest -rs tests/end_to_end/test_a_panel_on_a_ray_cluster.py

test-inspect: environment
	@.venv/bin/python -m venv build/inspect
	@build/inspect/bin/pip --disable-pip-version-check install --quiet inspect-ai openai
	@CONSILIUM_INSPECT=$$PWD/build/inspect/bin/inspect .venv/bin/python -m pytest -rs \
		tests/services/evaluation/test_others_harnesses_ask_the_panel.py

fuzz: environment
	@.venv/bin/python -m benchmarks.faults.fuzz $(if $(INPUTS),--inputs $(INPUTS),--seconds $(or $(SECONDS),60))

soak: environment
	@.venv/bin/python -m benchmarks.faults.soak --minutes $(or $(MINUTES),30)

check: environment
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

environment: $(READY)

# pip says nothing while it unpacks gigabytes, so a line every ten seconds shows that it lives. Its
# temporary files lie inside .venv: the size counts what is downloaded too, and nothing stays behind.
# A background job ignores Ctrl-C, and a shell that a signal ends runs no EXIT trap: so each is an exit.
define install
	@mkdir -p .venv/tmp; export TMPDIR=$$PWD/.venv/tmp; $(PIP) $(1) & pip=$$!; \
	trap 'kill $$pip 2>/dev/null' EXIT; \
	trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM; seconds=0; \
	while kill -0 $$pip 2>/dev/null; do \
		sleep 1; seconds=$$((seconds + 1)); \
		[ $$((seconds % 10)) -ne 0 ] || echo "  $$seconds s, $$(du -sm .venv | cut -f1) MB"; \
	done; wait $$pip || { echo "$(2)" >&2; exit 1; }
endef

$(READY): pyproject.toml constraints/$(BUILD).txt
	@echo "Making .venv with vLLM's $(BUILD) build: about 4 GB, two to five minutes."
	@$(PYTHON) -c '$(FITS)' 2>/dev/null || { \
		for other in python3.11 python3.12 python3.13 python3.14; do \
			$$other -c '$(FITS)' 2>/dev/null && found="$$found $$other"; \
		done; \
		echo "Consilium needs Python 3.11 to 3.14 with venv; $(PYTHON) is" \
			"$$($(PYTHON) -V 2>&1 | tail -n 1). Found on the PATH:$${found:- none that fits}." \
			"Choose with: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; \
		exit 1; }
	@$(PYTHON) -m venv --clear .venv
ifeq ($(BUILD),cpu)
	$(call install,--no-deps torch==2.13.0+cpu $$($(TORCH_FROM)),No CPU build of torch 2.13.0 was \
		found. Set CONSILIUM_TORCH_INDEX to a package index that carries it and run make again.)
endif
	$(call install,--editable '.[$(BUILD)$(,)train$(,)dev]',The packages could not be installed; \
		see pip above.)
	$(call install,--no-deps vllm-bnb-plugin,The plugin for 4-bit weights could not be installed; \
		see pip above.)
	@rm -rf .venv/tmp
	@touch $@

, := ,

clean:
	rm -rf .venv build consilium.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf $(addprefix $(CACHE)/,base lib served features scenes logs vllm image_hashes.json .models.lock)
	[ ! -d $(CACHE) ] || rmdir --ignore-fail-on-non-empty $(CACHE)
