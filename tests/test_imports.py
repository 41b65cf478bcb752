"""The shape of the house: imports go down only, and what must be quick is quick."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import a2video

PACKAGE = Path(a2video.__file__).parent
ALLOWED = {  # what a part may import besides the standard library
    "models": {"torch", "pytorchvideo", "fvcore", "a2video.models"},
    "data": {"torch", "numpy", "av", "decord", "torchcodec", "PIL", "a2video.data", "a2video.errors"},
    "inference": {
        *("torch", "numpy", "safetensors", "av", "PIL", "tqdm", "starlette", "uvicorn"),
        *("a2video.data", "a2video.models", "a2video.inference", "a2video.errors", "a2video.atomic"),
        *("a2video.html_charts", "a2video.html_page", "a2video.printable", "a2video.provenance"),
    },
    "augment.py": {"torch", "numpy", "kornia", "a2video.errors"},
    "schedules.py": {"a2video.errors"},
    "optimizers.py": {"torch", "a2video.errors"},
    "freezing.py": {"torch", "a2video.errors", "a2video.optimizers"},
    "recompute.py": {"torch", "a2video.optimizers"},
    "errors.py": set(),
    "printable.py": set(),
    "scores.py": {"numpy", "a2video.data"},
    "score_files.py": {"numpy", "pyarrow", "a2video.atomic", "a2video.comparison", "a2video.errors", "a2video.scores"},
    "results.py": {"numpy", "torch", "a2video.atomic", "a2video.data", "a2video.inference", "a2video.scores"},
    "html_charts.py": {"numpy", "PIL"},
    "html_page.py": {"jinja2", "markupsafe", "a2video", "a2video.html_charts"},
    "html_gallery.py": {"numpy", "PIL", "a2video.data", "a2video.errors", "a2video.html_charts", "a2video.results"},
    "rescore.py": {
        "numpy",
        "a2video.data",
        "a2video.errors",
        "a2video.provenance",
        "a2video.results",
        "a2video.scores",
    },
}


def imported(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names.add(node.module)
    return {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}


def test_imports_go_down_only() -> None:
    num_checked = 0
    for part, allowed in ALLOWED.items():
        path = PACKAGE / part
        for file in [path] if path.is_file() else path.glob("*.py"):
            num_checked += 1
            for name in imported(file):
                is_allowed = any(name == a or name.startswith(a + ".") for a in allowed)
                rebuilds = part == "models" and name == "a2video"  # description.py looks up the public builders
                assert is_allowed or rebuilds, (file.name, name)
    assert num_checked > 10


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('MODULES', *sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.splitlines()[-1].split()[1:])


def test_importing_the_package_and_asking_for_help_loads_nothing_heavy() -> None:
    help_code = "from a2video.cli import main\ntry: main(['--help'])\nexcept SystemExit as e: assert e.code == 0"
    heavy = {"torch", "numpy", "av", "lightning", "matplotlib", "jsonargparse"}
    assert not heavy & loaded_after("import a2video")
    assert not heavy & loaded_after(help_code)


def test_inference_does_without_lightning() -> None:
    loaded = loaded_after("import a2video\na2video.VideoClassifier")
    assert "torch" in loaded
    assert not {"lightning", "torchmetrics", "matplotlib"} & loaded


def test_every_public_name_loads() -> None:
    for name in a2video.__all__:
        assert getattr(a2video, name) is not None
    assert set(a2video.__all__) == set(a2video._HOMES)
