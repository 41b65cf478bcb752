# make demo   data, training, testing and classification in one go: results in runs/demo/
# make test   every check: style, types, tests
# make torture  the campaign of faults: at most 20 minutes, writes benchmarks/results/torture.md
# make .venv  only the virtual environment, with the versions of constraints.txt
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo

.PHONY: demo test torture .venv clean

# torch goes first: where a CPU build is at hand, pip then keeps it.
.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch .venv/installed

.venv: .venv/installed

# The control is the same network on clips that repeat one frame, for 4 epochs.
DEMO_CONFIG := --config configs/motion/demo.yaml
CONTROL := $(DEMO_CONFIG) --data.preprocessing.frame_stride 0 --trainer.default_root_dir $(DEMO)/control

demo: .venv
	$(BIN)/python data_prep/motion.py --out $(DEMO)/data
	$(BIN)/python -m a2video fit $(DEMO_CONFIG) --overwrite true
	$(BIN)/python -m a2video test $(DEMO_CONFIG) --ckpt_path $(DEMO)/best.ckpt
	$(BIN)/python -m a2video fit $(CONTROL) --overwrite true --trainer.max_epochs 4
	$(BIN)/python -m a2video test $(CONTROL) --ckpt_path $(DEMO)/control/best.ckpt
	$(BIN)/python -m a2video classify $(DEMO)/best.ckpt $(DEMO)/data/videos/test/00000.mp4
	@echo
	@$(BIN)/python -m a2video compare $(DEMO) $(DEMO)/control
	@echo
	@echo "The demo is done ($(DEMO)/control: the same network on clips that repeat one frame). Its files:"
	@ls -d $(DEMO)/best.ckpt $(DEMO)/results.json $(DEMO)/*.png $(DEMO)/*.csv $(DEMO)/data

# Apart, for once OpenVINO and ONNX Runtime have started their threads, a process is no place for tests that fork.
test: .venv
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --ignore tests/inference
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/inference

# The short part of it is among the tests.
torture: .venv
	rm -rf runs/torture
	-A2VIDEO_TORTURE=$(CURDIR)/runs/torture $(BIN)/python -m pytest -m "" --numprocesses 2 tests/torture
	$(BIN)/python tests/torture/write_table.py runs/torture

clean:
	rm -rf .venv runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache
