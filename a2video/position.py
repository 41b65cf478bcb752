"""Where a training stands, exactly: put into each checkpoint, and taken up again from it.

Lightning keeps counters in its loops whose meaning depends on the hook in which a checkpoint was saved. Here they are
read once, when saving, and written back in the one form from which Lightning's loops go on at the next batch.
"""

from __future__ import annotations

import random
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loops.progress import _ProcessedTracker

KEY = "a2video_position"  # of what follows, in a checkpoint
LOOP = "epoch_loop."


def position(trainer: pl.Trainer, validated: int) -> dict[str, Any]:
    """Where the training stands, as plain data.

    Args:
        trainer: in any hook of fit.
        validated: number of training batches, of all epochs, after which the last validation ended.

    Returns:
        `epoch`: epochs done; `batch`: batches done of the next; `is_last_batch`: whether it was its last one;
        `validation_due`, `validation_done`: after this batch; `num_logged_steps`: Lightning's count for its loggers.
    """
    loop = trainer.fit_loop
    batches, epochs = loop.epoch_loop.batch_progress, cast(_ProcessedTracker, loop.epoch_progress.current)
    batch, total = cast(_ProcessedTracker, batches.current), cast(_ProcessedTracker, batches.total)
    under_way = epochs.started > epochs.processed
    just_ended = under_way and batch.completed < batch.processed  # in on_train_batch_end
    is_validated = under_way and validated == total.processed
    fetcher = loop._data_fetcher
    is_due = just_ended and fetcher is not None and loop.epoch_loop._should_check_val_fx(fetcher)
    return {
        "epoch": epochs.processed,
        "batch": batch.processed if under_way else 0,
        "is_last_batch": under_way and batches.is_last_batch,
        "validation_due": is_due or is_validated or trainer.validating,
        "validation_done": is_validated,
        "num_logged_steps": loop.epoch_loop._batches_that_stepped + (just_ended or trainer.validating),
    }


def num_batches_done(trainer: pl.Trainer) -> int:
    """Training batches done in all epochs."""
    return cast(_ProcessedTracker, trainer.fit_loop.epoch_loop.batch_progress.total).processed


def num_epochs_done(trainer: pl.Trainer) -> int:
    """Training epochs done."""
    return cast(_ProcessedTracker, trainer.fit_loop.epoch_progress.current).processed


def take_up(checkpoint: dict[str, Any]) -> None:
    """Sets the loops' counters in a checkpoint to its position."""
    here, loops = checkpoint[KEY], checkpoint["loops"]["fit_loop"]
    done = _all(here["epoch"])
    epoch = {**done, "ready": here["epoch"] + 1, "started": here["epoch"] + 1} if here["batch"] else done
    loops["epoch_progress"] = {"total": epoch, "current": dict(epoch)}
    total = loops[f"{LOOP}batch_progress"]["total"]["processed"]
    loops[f"{LOOP}batch_progress"] = {
        "total": _all(total),
        "current": _all(here["batch"]),
        "is_last_batch": here["is_last_batch"],
    }
    is_pending = here["validation_due"] and not here["validation_done"]
    validation = {**_all(0), "ready": 1, "started": 1} if is_pending else _all(0)  # as if killed in its first batch
    loops[f"{LOOP}val_loop.batch_progress"] = {
        "total": validation,
        "current": dict(validation),
        "is_last_batch": False,
    }
    # after a batch that validation follows, Lightning comes through the end of that batch once more
    loops[f"{LOOP}state_dict"]["_batches_that_stepped"] = here["num_logged_steps"] - here["validation_due"]


def _all(count: int) -> dict[str, int]:
    return {"ready": count, "started": count, "processed": count, "completed": count}


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of every global random generator of this process, as tensors and plain data."""
    kind, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), place, has_gauss, gauss],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Undoes what has happened since `random_state`; a GPU starts anew where the state is of a CPU."""
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def epoch_means(trainer: pl.Trainer) -> dict[str, dict[str, Any]]:
    """Means over the epoch that are under way: their sums so far on this process, and how they are logged."""
    means = {}
    for key, metric in trainer.fit_loop.epoch_loop._results.items():
        meta = metric.meta
        if metric.is_tensor and meta.on_epoch and meta.is_mean_reduction and not metric.has_reset:
            means[key] = {
                "sum": metric.value.detach().cpu().clone(),
                "weight": torch.as_tensor(metric.cumulated_batch_size).cpu().clone(),
                "fx": meta.fx,
                "options": {name: getattr(meta, name) for name in ("name", "prog_bar", "logger", "on_step")},
                "sync_dist": meta.sync.should,
            }
    return means


def add_epoch_means(trainer: pl.Trainer, means: dict[str, dict[str, Any]]) -> None:
    """Adds the sums of before to those that are logged again by now, and takes them out of `means`."""
    results = trainer.fit_loop.epoch_loop._results
    for key in [key for key in means if key in results and not results[key].has_reset]:
        metric, mean = results[key], means.pop(key)
        metric.value = mean["sum"].to(metric.value.device) + metric.value
        metric.cumulated_batch_size = metric.cumulated_batch_size + mean["weight"].to(metric.value.device)
        metric._computed = None


def log_epoch_means(trainer: pl.Trainer, means: dict[str, dict[str, Any]]) -> None:
    """Logs all sums of before, where no batch of the epoch is left that would log these names."""
    results = trainer.fit_loop.epoch_loop._results
    for key, mean in means.items():
        value = torch.zeros_like(mean["sum"], device=trainer.strategy.root_device)
        reduce = trainer.strategy.reduce
        results.log(mean["fx"], **mean["options"], value=value, on_epoch=True, sync_dist=mean["sync_dist"],
                    sync_dist_fn=reduce, batch_size=0)  # fmt: skip
        assert key in results
    add_epoch_means(trainer, means)
