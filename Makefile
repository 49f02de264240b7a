# Two verbs set everything up: `make demo` and `make test`. PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
# one thread a process: the test runner starts a process a core, and small models gain nothing from more
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

.PHONY: demo test check format slow docs least package release-check clean

demo: .venv/.installed
	$(BIN)/garnish demo --out demo

test: check
	$(TEST_ENV) $(BIN)/pytest -q -n 2 --dist loadfile

check: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy src/garnish/__init__.py  # which its stub hides from the line above
	$(TEST_ENV) $(BIN)/pytest -q tests/test_layers.py

slow: .venv/.installed
	$(TEST_ENV) $(BIN)/pytest -q -n 2 --dist worksteal -m "slow or real"

# the fast suite with the least versions that pyproject.toml allows, in an environment of its own
least: .venv-least/.installed
	$(TEST_ENV) .venv-least/bin/python -m pytest -q -n 2 --dist loadfile

.venv-least/.installed: pyproject.toml .venv/.installed
	$(BIN)/uv venv -q --clear --python $(BIN)/python .venv-least
	$(BIN)/uv pip install -q --resolution lowest-direct --python .venv-least/bin/python -e '.[test]'
	touch $@

# builds the wheel and the source archive, and tries the wheel where nothing else is; PYTHONS="3.11 3.12 3.13" tries more
package: .venv/.installed
	$(BIN)/python tools/try_package.py --least $(PYTHONS)

release-check: package
	$(BIN)/python tools/release_check.py
	$(TEST_ENV) $(BIN)/pytest -q tests/test_deprecated.py tests/test_docs.py

format: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/.installed
	$(BIN)/python tools/generate_docs.py
	$(BIN)/python tools/draw_memory.py

.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'garnish needs Python 3.11 or newer; try make PYTHON=python3.12')"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q "$$(grep '^uv==' requirements.lock)"
	# compiled once, for each process imports a few thousand files; uv does not by itself
	$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	touch $@

clean:
	rm -rf .venv .venv-least build dist demo .mypy_cache .pytest_cache .ruff_cache
