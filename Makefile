# Two commands on a fresh machine: `make run` speaks, `make test` proves. Both set up .venv by themselves.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
export OMP_NUM_THREADS ?= 2

# XTTS brings torch (gigabytes), so it is installed only where it was asked for.
WANTED := $(if $(filter xtts,$(XTTS_ENGINE))$(XTTS_MODEL_PATH),xtts,espeak)

# For check-sql: Debian's Postgres, which alone has plpgsql_check, and the Supabase CLI, from npm.
PLPGSQL_CHECK := /usr/share/postgresql/15/extension/plpgsql_check.control
SUPABASE_CLI := 3.1.0

# For test-image: what builds, and where this machine has Debian from, of which a stand-in for the base image is made.
BUILDERS := /usr/bin/podman /usr/sbin/runc /usr/bin/mmdebstrap
APT_SOURCES := $(wildcard /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources)

.PHONY: run test check check-sql test-legacy test-image clean

run: .venv/.$(WANTED)
	@.venv/bin/python handler.py $(ARGS)

test: .venv/.dev
	$(MAKE) check

check: .venv/.dev
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest

check-sql: .venv/.dev $(PLPGSQL_CHECK) build/supabase/.$(SUPABASE_CLI)
	.venv/bin/python -m tests.check_sql
	.venv/bin/python -m tests.sql_mutations

$(PLPGSQL_CHECK):
	@test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { \
		echo "check-sql needs Debian's postgresql-15 and postgresql-15-plpgsql-check; as root it installs them" >&2; exit 1; }
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends postgresql-15 postgresql-15-plpgsql-check

build/supabase/.$(SUPABASE_CLI):
	@command -v npm >/dev/null || { echo "check-sql needs npm, for the Supabase CLI" >&2; exit 1; }
	rm -rf build/supabase
	npm install --prefix build/supabase --no-save --no-package-lock --no-audit --no-fund --loglevel=error supabase@$(SUPABASE_CLI)
	@touch $@

test-legacy: .venv/.dev
	TEST_GRANTS=legacy OMP_NUM_THREADS=1 .venv/bin/python -m pytest -k "supabase and not benchmarks" tests/test_store*.py tests/test_supabase_*.py

test-image: .venv/.dev $(BUILDERS) build/base.tar
	.venv/bin/python -m tests.check_image

$(BUILDERS) &:
	@test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { \
		echo "test-image needs root on a Debian 12; it installs podman, runc and mmdebstrap there" >&2; exit 1; }
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends podman runc mmdebstrap

build/base.tar: | $(BUILDERS)
	@mkdir -p build
	mmdebstrap --quiet --format=tar --variant=apt --include=ca-certificates,python3,python3-venv '' $@.part $(APT_SOURCES)
	@mv $@.part $@

clean:
	rm -rf .venv build out data

.venv/.espeak: EXTRAS = espeak
.venv/.xtts: EXTRAS = espeak,xtts
.venv/.dev: EXTRAS = espeak,xtts,dev
.venv/.%: pyproject.toml constraints.txt
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@
