from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import OneWeight, TinyData, batch_of, fit
from torch import Tensor, nn

from a2video.ema import TRAINING_KEY, Ema, decay_of
from a2video.errors import InputError
from a2video.optimizers import Sgd
from a2video.recognizer import Recognizer

# One update with lr 1 from w = 0: w = 0.5; then 0.5 + sigmoid(-0.5) = 0.8775407, then + sigmoid(-0.8775407) = 1.1712284
WEIGHTS = [0.5, 0.8775407, 1.1712284]
# With d = 0.6: 0.4 * 0.5 = 0.2; 0.6 * 0.2 + 0.4 * 0.8775407 = 0.4710163; 0.6 * 0.4710163 + 0.4 * 1.1712284 = 0.7511011
AVERAGES = [0.2, 0.4710163, 0.7511011]


def recognizer() -> Recognizer:
    return Recognizer(OneWeight(), Sgd(1.0, momentum=0, weight_decay=0))


def saved(folder: Path) -> dict[str, dict[str, Tensor]]:
    return torch.load(folder / "last.ckpt", weights_only=True)


class Watch(OneWeight):
    """Keeps the weight that each validation uses."""

    def __init__(self) -> None:
        super().__init__()
        self.used: list[float] = []

    def forward(self, clips: Tensor) -> Tensor:
        if not self.training:
            self.used.append(self.w.item())
        return super().forward(clips)


def test_decay_with_warmup() -> None:
    assert [decay_of(update, 0.9, True) for update in (0, 1, 2, 80, 1000)] == pytest.approx(
        [0.1, 2 / 11, 0.25, 0.9, 0.9]
    )
    assert decay_of(0, 0.9, False) == 0.9


def test_three_steps_by_hand(tmp_path: Path) -> None:
    module = Recognizer(Watch(), Sgd(1.0, momentum=0, weight_decay=0))
    record, _ = fit(module, TinyData.of([1]), tmp_path, [Ema(0.6, warmup=False)], max_epochs=3)
    assert record.weights == pytest.approx(WEIGHTS)
    assert module.network.used == pytest.approx([0.0, *AVERAGES])  # the sanity check, then each epoch
    assert module.network.w.item() == pytest.approx(AVERAGES[2])
    checkpoint = saved(tmp_path)
    assert checkpoint["state_dict"]["network.w"].item() == pytest.approx(AVERAGES[2])
    assert checkpoint[TRAINING_KEY]["network.w"].item() == pytest.approx(WEIGHTS[2])


def test_warmup_forgets_the_first_weights(tmp_path: Path) -> None:
    fit(recognizer(), TinyData.of([1]), tmp_path, [Ema(0.6)], max_epochs=1)
    assert saved(tmp_path)["state_dict"]["network.w"].item() == pytest.approx(0.9 * 0.5)


def test_an_accumulated_step_is_one_update(tmp_path: Path) -> None:
    record, _ = fit(
        recognizer(), TinyData.of([1, 1]), tmp_path, [Ema(0.6, False)], max_epochs=1, accumulate_grad_batches=2
    )
    assert record.weights == pytest.approx([0.5])
    assert saved(tmp_path)["state_dict"]["network.w"].item() == pytest.approx(0.2)


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    fit(recognizer(), TinyData.of([1, 2]), tmp_path / "through", [Ema(0.6)], max_epochs=3)
    fit(recognizer(), TinyData.of([1, 2]), tmp_path, [Ema(0.6)], max_epochs=1)
    fit(recognizer(), TinyData.of([1, 2]), tmp_path, [Ema(0.6)], tmp_path / "last.ckpt", max_epochs=3)
    through, resumed = saved(tmp_path / "through"), saved(tmp_path)
    for key in ("state_dict", TRAINING_KEY):
        assert torch.equal(through[key]["network.w"], resumed[key]["network.w"])
    assert not torch.equal(through["state_dict"]["network.w"], through[TRAINING_KEY]["network.w"])


def test_a_run_with_averages_does_not_go_on_without(tmp_path: Path) -> None:
    fit(recognizer(), TinyData.of([1]), tmp_path, [Ema(0.6)], max_epochs=1)
    with pytest.raises(InputError, match=r"put a2video.ema.Ema into trainer.callbacks again"):
        fit(recognizer(), TinyData.of([1]), tmp_path, checkpoint=tmp_path / "last.ckpt", max_epochs=2)


def test_a_run_without_averages_starts_them(tmp_path: Path) -> None:
    fit(recognizer(), TinyData.of([1]), tmp_path, max_epochs=1)
    fit(recognizer(), TinyData.of([1]), tmp_path, [Ema(0.6, False)], tmp_path / "last.ckpt", max_epochs=2)
    expected = 0.6 * WEIGHTS[0] + 0.4 * WEIGHTS[1]
    assert saved(tmp_path)["state_dict"]["network.w"].item() == pytest.approx(expected)


class Normed(OneWeight):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(3)

    def forward(self, clips: Tensor) -> Tensor:
        return super().forward(self.norm(clips) + clips)


def test_batch_norm_statistics_are_averaged_and_their_counter_is_copied(tmp_path: Path) -> None:
    # one batch of zeros and twos: mean 1, running mean 0.1, average 0.4 * 0.1; variance 2 of 2 values: 0.9 + 0.2 = 1.1
    clips = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1, 1).expand(2, 3, 1, 1, 1)
    module = Recognizer(Normed(), Sgd(0.0))
    fit(module, TinyData([batch_of(clips, [0, 1])]), tmp_path, [Ema(0.6, False)], max_epochs=1)
    state = saved(tmp_path)["state_dict"]
    assert state["network.norm.running_mean"].tolist() == pytest.approx([0.04] * 3)
    assert state["network.norm.running_var"].tolist() == pytest.approx([0.6 + 0.4 * 1.1] * 3)
    assert state["network.norm.num_batches_tracked"].item() == 1
    assert saved(tmp_path)[TRAINING_KEY]["network.norm.running_mean"].tolist() == pytest.approx([0.1] * 3)


def test_wrong_decay() -> None:
    with pytest.raises(InputError, match=r"must be in \[0, 1\), got 1"):
        Ema(1)
