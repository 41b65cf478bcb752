# make demo      data, training, testing and classification in one go: results in runs/demo/
# make test      every check: style, types, tests
# make .venv     only the virtual environment, with the versions of constraints.txt
# make torture   the campaign of faults: at most 20 minutes, writes benchmarks/results/torture.md
# make ablation  does double attention earn its cost? about four hours on 2 cores, writes benchmarks/results/ablation.md
# make readme    README's tables, from the networks and from benchmarks/results/
# make fuzz      made-up lists, descriptions and checkpoints for 10 minutes (needs atheris, which it installs)
# make versions  the fast tests with the lowest and the newest versions that setup.cfg allows
# make pins      after a change of constraints.txt: its checksums, and the licences of what it names
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo

.PHONY: demo test torture .venv ablation readme fuzz versions pins clean

# Everything but torch with its checksum; of torch, pip keeps the CPU build where one is at hand.
.venv/installed: setup.cfg pyproject.toml constraints.txt constraints-hashed.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r constraints-hashed.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .
	$(BIN)/python -m pip check
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

test: .venv
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --max-worker-restart 0

ablation: .venv
	$(BIN)/python benchmarks/ablation.py

readme: .venv
	$(BIN)/python benchmarks/readme.py

fuzz: .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check atheris
	$(BIN)/python benchmarks/fuzz_inputs.py --seconds 600 --out runs/fuzzed

versions: .venv
	$(BIN)/python dependencies/versions.py lowest --folder runs/versions
	$(BIN)/python dependencies/versions.py newest --folder runs/versions

pins: .venv
	$(BIN)/python dependencies/hashes.py
	$(BIN)/python dependencies/licences.py

# The short part of it is among the tests.
torture: .venv
	rm -rf runs/torture
	-A2VIDEO_TORTURE="$(CURDIR)/runs/torture" $(BIN)/python -m pytest -m "" --numprocesses 2 tests/torture
	$(BIN)/python tests/torture/write_table.py runs/torture

clean:
	rm -rf .venv runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache
