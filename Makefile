# make run   the whole experiment: notebooks 01 to 08, then the table
# make test  the tests
# Both make the environment first, in .venv, from requirements.lock.

DATASET ?= microcalls
# cpu, pretrained, audio, gpu or smoke; empty: cpu, or what a study asks for
PROFILE ?=
STUDY ?=
# Of a model's networks, for example "log_db mel_db"; empty: log_db and hires_q2
REPRESENTATION ?=
PYTHON ?= python3
BIN := .venv/bin
# Of a Dask cluster, for example tcp://host:8786: its workers then make the spectrograms and the runs.
SCHEDULER ?=
export SCHEDULER
# Where this is set, as in many containers, each kernel and worker compiles torch and fastai anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup run neighbours study model demo test lint notebooks recompute clean

setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml spectral-hyperresolution/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; name it with make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	@# uv installs the same packages as pip in a fraction of the time. Like pip it compiles them here: else
	@# the first process that loads one does.
	@{ $(BIN)/python -m pip install --quiet uv && \
		$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirement requirements.lock; } || \
	{ echo "uv cannot be used here; pip installs the packages, which takes a few minutes longer"; \
		$(BIN)/python -m pip install --quiet --requirement requirements.lock; }
	$(BIN)/python -m pip install --quiet --no-deps --editable ./spectral-hyperresolution --editable .
	@touch $@

run: setup
	$(BIN)/python -m freesound_tagging run --dataset "$(DATASET)" $(if $(PROFILE),--profile "$(PROFILE)")

# The notebooks from 9 on, about systems around the comparison.
neighbours: setup
	$(BIN)/python -m freesound_tagging neighbours --dataset "$(DATASET)" $(if $(PROFILE),--profile "$(PROFILE)")

# One of the scripts in studies/, for example: make study STUDY=grid DATASET=esc10
study: setup
	@test -f "studies/$(STUDY).py" || { echo "STUDY must name a script in studies/"; exit 2; }
	$(BIN)/python -m "studies.$(STUDY)" --dataset "$(DATASET)" $(if $(PROFILE),--profile "$(PROFILE)")

# Train on all clips of a data set and save what freesound-tagging tag needs, under models/.
model: setup
	$(BIN)/python -m freesound_tagging model --dataset "$(DATASET)" $(if $(PROFILE),--profile "$(PROFILE)") \
		$(foreach name,$(REPRESENTATION),--representation "$(name)")

# Tag a sound in the browser, on this machine alone.
demo: setup
	$(BIN)/python -m freesound_tagging demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

# Execute the committed notebooks in place, with the parameters that stand in them and three seeds; FILES="notebooks/05*" for some.
notebooks: setup
	SEEDS=3 $(BIN)/python notebooks/execute.py $(FILES)

# Make every committed table anew from the committed scores.
recompute: setup
	$(BIN)/python -m results.recompute

# Remove what can be computed again; downloads and results stay.
clean:
	rm -rf data/interim runs
