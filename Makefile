# make demo: see it run.  make test: see it hold.  Needs python3 (3.10 or newer, with venv) and make;
# what is about ROS also a C++ compiler. ROS 2 comes from PyPI here: never run this in a shell that
# sourced an installation of ROS 2, whose libraries it would mix with; there build with colcon.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
DEMO := demo
RESULTS := $(DEMO)/results

.DEFAULT_GOAL := help
.PHONY: help demo ros test lint reference clean

help: ## Say what there is to make
	@sed -n 's/^\([a-z]*\):.*## /  make \1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-18s%s\n", $$1, $$2}'

demo: $(VENV)/compiled $(DEMO)/street $(DEMO)/room_bag
demo: ## Render two worlds, replay them, say where the reports lie
	$(BIN)/vo-stream replay $(DEMO)/street --out $(RESULTS)/street
	$(BIN)/vo-stream replay $(DEMO)/room_bag --out $(RESULTS)/room_bag \
		--replay.groundtruth_topic /groundtruth
	@echo
	@echo "Open in a browser:"
	@echo "  $(CURDIR)/$(RESULTS)/street/report.html"
	@echo "  $(CURDIR)/$(RESULTS)/room_bag/report.html"

ros: $(VENV)/tf2_msgs ## Install ROS 2 into .venv, say how to start the node
	@echo
	@echo "Start the node:"
	@echo "  $(BIN)/vo_stream_node --ros-args --params-file config/vo_stream.yaml"

# The tests share the cores already: threads of one would wait for those of another.
test: lint $(VENV)/tf2_msgs $(VENV)/cyclonedds/installed ## Lint, check types, run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

lint: $(VENV)/installed-test ## Lint, check format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

reference: $(VENV)/installed ## Write config/vo_stream.yaml and docs/parameters.md anew
	$(BIN)/python tools/make_reference.py

clean: ## Remove everything that was made here
	rm -rf $(VENV) $(DEMO) build dist install log *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find vo_stream tests tools launch -name __pycache__ -prune -exec rm -rf {} +

# A recording is written whole or not at all: what is there stays.
$(DEMO)/street: | $(VENV)/installed
	$(BIN)/python tools/make_demo.py $(DEMO) --worlds street --formats folder

$(DEMO)/room_bag: | $(VENV)/installed
	$(BIN)/python tools/make_demo.py $(DEMO) --worlds room --formats bag

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.py | $(BIN)/python
	$(PIP) --editable .
	@touch $@

# The machine code is kept beside the source; without this the first replay would make it.
$(VENV)/compiled: $(wildcard vo_stream/adjust/*.py) | $(VENV)/installed
	@echo "Compiling the adjuster's solver, once: some 10 s"
	@$(BIN)/python -c "from vo_stream.adjust.solver import compile_solver; compile_solver()"
	@touch $@

$(VENV)/installed-ros: $(VENV)/installed
	$(PIP) --editable '.[ros]'
	@touch $@

$(VENV)/installed-test: $(VENV)/installed-ros
	$(PIP) --editable '.[test]'
	@touch $@

# Without a compiler it says what is missing, and is tried again the next time.
$(VENV)/tf2_msgs: tools/build_tf2_msgs.py $(wildcard tools/tf2_msgs/* tools/tf2_msgs/msg/*)
$(VENV)/tf2_msgs: | $(VENV)/installed-ros
	@$(BIN)/python tools/build_tf2_msgs.py --again
	@if $(BIN)/python -c "import tf2_msgs" 2>/dev/null; then touch $@; fi

# A second DDS, for the tests that hear the node with it: apart, its libraries are not ROS's.
$(VENV)/cyclonedds/installed: | $(BIN)/python
	@$(PYTHON) -m venv $(VENV)/cyclonedds
	@$(VENV)/cyclonedds/bin/python -m pip install --quiet --disable-pip-version-check \
		'cyclonedds>=11,<12' 2>/dev/null && touch $@ \
		|| echo "No cyclonedds for this Python: tests with a second DDS are skipped"
