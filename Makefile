# Two commands on a fresh machine: `make run` speaks, `make test` proves. Both set up .venv by themselves.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
export OMP_NUM_THREADS ?= 2

# XTTS brings torch (gigabytes), so it is installed only where it was asked for.
WANTED := $(if $(filter xtts,$(XTTS_ENGINE))$(XTTS_MODEL_PATH),xtts,espeak)

.PHONY: run test check clean

run: .venv/.$(WANTED)
	@.venv/bin/python handler.py $(ARGS)

test: .venv/.dev
	$(MAKE) check

check: .venv/.dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest

clean:
	rm -rf .venv out data

.venv/.espeak: EXTRAS = espeak
.venv/.xtts: EXTRAS = espeak,xtts
.venv/.dev: EXTRAS = espeak,xtts,dev
.venv/.%: pyproject.toml constraints.txt
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@
