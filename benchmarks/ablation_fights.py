"""The part of ablation.py that trains on real clips: surveillance_fights, where it is."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path

from ablation_data import IN_MEMORY, small_copies
from ablation_networks import BASE, MAIN
from ablation_runs import OfFit, Runs, finish_all, plan, pretrained, rows_of, seed_by_seed
from ablation_tables import Row, accuracies, against, wilson
from report import table

FIGHTS = Path(__file__).resolve().parents[2] / "shared/data/surveillance_fights"
OPTIONS = [  # smaller than the configuration's own, which fifty trainings must be
    *("--data.preprocessing.short_side", "56", "--data.preprocessing.crop_size", "48", "--data.train_short_side"),
    *("[56, 70]", "--data.preprocessing.num_crops", "1", "--data.num_workers", "0"),
    *IN_MEMORY,
]
NO_DROPOUT = ["--model.network.dropout", "0"]  # new blocks draw random weights: masks would differ after them
CLASSES = {"mean recall": ("fight", "no_fight")}


def on_fights(out: Path, width: int, pool: Executor, motion: Runs) -> list[str]:
    """Trains and tests from scratch, and from the weights of the same seed on motion: a section."""
    if not FIGHTS.exists():
        return ["## Surveillance fights", f"Not tried: {FIGHTS} is not there."]
    lists = small_copies(FIGHTS, out / "fights", 72)
    recipes: dict[str, tuple[str, OfFit]] = {
        "from scratch": ("a2net_tiny", lambda network, seed: []),
        "from motion": ("finetune", lambda network, seed: pretrained(motion[network][seed])),
    }
    lines = [
        "## Surveillance fights",
        "The interval of the share that always saying `fight` gets right is that of Wilson, for as many other test "
        "videos, taken as independent; some of these are of one source, which makes it too narrow.",
    ]
    for title, (name, of_fit) in recipes.items():
        config = f"configs/surveillance_fights/{name}.yaml"
        options = ["--config", config, *lists, *OPTIONS]
        of_all = {network: options + network.options(2, width) + NO_DROPOUT for network in MAIN.networks}
        runs = plan(out / title.replace(" ", "_"), of_all, dict.fromkeys(of_all, MAIN.num_seeds), of_fit)
        finish_all(title, seed_by_seed(runs), pool)
        lines += _tables(f"### {title.capitalize()}: `{config}`", runs)
    return lines


def _tables(title: str, runs: Runs) -> list[str]:
    results = runs[BASE][0].results
    rows, share = rows_of(runs, CLASSES), results["majority_baseline"]
    low, high = wilson(share, results["num_videos"])
    name = f"always `fight` (95 %: {100 * low:.0f} to {100 * high:.0f})"
    always = Row(name, {"clip": {0: share}, "video": {0: share}, "mean recall": {0: 0.5}})
    return [
        f"{title}, {results['num_videos']} test videos, {results['protocol']}",
        table(*accuracies([always, *rows], CLASSES)),
        "The same seed, with and without:",
        table(*against(rows, rows[0], CLASSES)),
    ]
