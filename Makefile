# make demo   data, training, testing and classification in one go: results in runs/demo/
# make test   every check: style, types, tests
# make .venv  only the virtual environment, with the versions of constraints.txt
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo

.PHONY: demo test .venv clean

# torch goes first: where a CPU build is at hand, pip then keeps it.
.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch .venv/installed

.venv: .venv/installed

demo: .venv
	$(BIN)/python data_prep/motion.py --out $(DEMO)/data
	$(BIN)/python -m a2video fit --config configs/motion/demo.yaml --overwrite true
	$(BIN)/python -m a2video test --config configs/motion/demo.yaml --ckpt_path $(DEMO)/best.ckpt
	$(BIN)/python -m a2video classify $(DEMO)/best.ckpt $(DEMO)/data/videos/test/00000.mp4

test: .venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

clean:
	rm -rf .venv runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache
