from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from test_interruption import fit_command, status_of
from tiny import OneWeight, TinyData, batch_of, fit
from torch import Tensor, nn

from a2video.ema import Ema
from a2video.errors import InputError
from a2video.freezing import Freeze
from a2video.optimizers import Sgd
from a2video.precise_bn import PreciseBatchNorm, recompute
from a2video.recognizer import Recognizer

# The values 0 2 4 6 | 10 14 of two batches: mean 6, unbiased variance (36 + 16 + 4 + 0 + 16 + 64) / 5 = 27.2.
# Each batch normalized by itself has mean 0 and variance 1, so that the second norm gets mean 0 and variance 6 / 5.
INPUTS = [torch.tensor([0.0, 2.0, 4.0, 6.0]).view(2, 1, 2, 1, 1), torch.tensor([10.0, 14.0]).view(2, 1, 1, 1, 1)]


def two_norms() -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm3d(1), nn.Dropout(0.9), nn.BatchNorm3d(1))


def statistics(network: nn.Module) -> list[float]:
    return [buffer.item() for name, buffer in network.named_buffers() if name.endswith(("mean", "var"))]


@pytest.mark.parametrize("is_synced", [False, True])
def test_statistics_of_known_values(is_synced: bool) -> None:
    network = nn.SyncBatchNorm.convert_sync_batchnorm(two_norms()) if is_synced else two_norms()
    network[1].eval()
    before = torch.get_rng_state()
    recompute(network, iter(INPUTS))
    assert statistics(network) == pytest.approx([6, 27.2, 0, 1.2], abs=1e-5)
    assert [module.training for module in network] == [True, False, True]
    assert network[0].num_batches_tracked == 0
    assert torch.equal(torch.get_rng_state(), before)
    assert not network[0]._forward_pre_hooks


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    network = two_norms()
    recompute(network, iter(INPUTS[rank : rank + 1]))
    torch.save(statistics(network), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_ranks_with_a_batch_each_get_the_same(tmp_path: Path) -> None:
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    alone = two_norms()
    recompute(alone, iter(INPUTS))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first == second == statistics(alone)


class Measured(OneWeight):
    """What the norm gets is w x; it does not change the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(3)
        self.used: list[float] = []  # means in validation

    def forward(self, clips: Tensor) -> Tensor:
        if not self.training:
            self.used.append(self.norm.running_mean[0].item())
        return super().forward(clips) + 0 * self.norm(self.w * clips).mean()


def fit_measured(folder: Path, *callbacks: Any, **options: Any) -> dict[str, Tensor]:
    """One epoch of two batches whose values are 1 3 and 5 7; lr 1 from w = 0."""
    batches = [
        batch_of(torch.tensor(x).view(2, 1, 1, 1, 1).expand(2, 3, 1, 1, 1), [0, 0]) for x in ([1.0, 3], [5.0, 7])
    ]
    module = Recognizer(Measured(), Sgd(1.0, momentum=0, weight_decay=0))
    fit(module, TinyData(batches), folder, callbacks, max_epochs=1, num_sanity_val_steps=0, **options)
    assert module.network.norm.training
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    assert state["network.norm.num_batches_tracked"] == 2
    return {**state, "used": torch.tensor(module.network.used)}


def test_validation_and_checkpoint_have_the_statistics_of_the_last_weights(tmp_path: Path) -> None:
    state = fit_measured(tmp_path, PreciseBatchNorm())
    w = state["network.w"].item()
    assert w == pytest.approx(1.0, abs=0.1)  # the second gradient is nearly nothing
    assert state["network.norm.running_mean"].tolist() == pytest.approx([4 * w] * 3)
    assert state["network.norm.running_var"].tolist() == pytest.approx([20 / 3 * w**2] * 3)
    assert state["used"].tolist()[-2:] == pytest.approx([4 * w] * 2)


def test_only_the_first_batches_and_without_validation(tmp_path: Path) -> None:
    state = fit_measured(tmp_path, PreciseBatchNorm(num_batches=1), limit_val_batches=0)
    w = state["network.w"].item()
    assert state["network.norm.running_mean"].tolist() == pytest.approx([2 * w] * 3)
    assert state["network.norm.running_var"].tolist() == pytest.approx([2 * w**2] * 3)


@pytest.mark.parametrize("is_first", [True, False])
def test_statistics_of_averaged_weights(tmp_path: Path, is_first: bool) -> None:
    """In whatever order the callbacks are given."""
    callbacks = [Ema(0.6, False), PreciseBatchNorm()]
    state = fit_measured(tmp_path, *(callbacks if is_first else callbacks[::-1]))
    w = state["network.w"].item()
    assert 0.5 < w < 0.7  # 0.6 * 0.4 * 1 + 0.4 * 1 and a little
    assert state["network.norm.running_mean"].tolist() == pytest.approx([4 * w] * 3)
    assert state["used"].tolist()[-2:] == pytest.approx([4 * w] * 2)
    training = torch.load(tmp_path / "last.ckpt", weights_only=True)["a2video_training_weights"]
    assert training["network.norm.running_mean"].tolist() != pytest.approx([4 * w] * 3)


@pytest.mark.timeout(60)  # it used to wait for ever
def test_the_loader_that_trains_goes_on_and_no_second_workers_stay(
    write_config: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation in the middle of an epoch of 8 batches, its statistics from another pass over the same videos."""
    num_workers: dict[str, int] = {}

    def look(self: PreciseBatchNorm, trainer: Any, pl_module: Any) -> None:
        self._update(trainer, pl_module)
        num_workers.update({name: len(loader._workers) for name, loader in trainer.datamodule.loaders.items()})

    monkeypatch.setattr(PreciseBatchNorm, "on_train_epoch_end", look)
    options = ["--trainer.callbacks+=a2video.precise_bn.PreciseBatchNorm", "--data.num_workers=1"]
    options += ["--trainer.val_check_interval=0.5", "--trainer.max_epochs=1", "--trainer.num_sanity_val_steps=0"]
    assert status_of(fit_command(write_config(tmp_path), *options)) == 0
    assert num_workers == {"train": 1, "val": 1, "precise": 0}
    assert torch.load(tmp_path / "out/last.ckpt", weights_only=True)["global_step"] == 8


def test_nothing_to_compute(tmp_path: Path) -> None:
    module = Recognizer(Measured(), Sgd(1.0), freeze=Freeze(norm_statistics=True))
    with pytest.raises(InputError, match="no batch norm that is not frozen"):
        fit(module, TinyData.of([1]), tmp_path, [PreciseBatchNorm()], max_epochs=1)
    with pytest.raises(InputError, match="must be at least 1, got 0"):
        PreciseBatchNorm(0)
