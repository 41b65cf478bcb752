from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_video
from torch import Tensor

from a2video.data import transforms, views
from a2video.data.dataset import VideoDataset, collate
from a2video.data.protocols import (
    Dense,
    GloreKinetics,
    GloreKineticsClip,
    MfnetUcf101,
    OfPreprocessing,
    OneCentreClip,
    Protocol,
    Uniform,
    Uniform4x3,
    Uniform5x1,
    Uniform10x3,
)
from a2video.data.pyav_reader import PyAVReader
from a2video.data.samplers import ConsecutiveClips
from a2video.data.transforms import EvenCrops, Preprocessing, RandomCrops
from a2video.data.video_list import VideoList
from a2video.data.views import EXTRA_CLIP, View, load_views
from a2video.errors import InputError

P = Preprocessing(num_frames=4, frame_stride=2, short_side=16, crop_size=12, num_clips=2, num_crops=1)  # span 7
EIGHT = Preprocessing(num_frames=8, frame_stride=8, short_side=16, crop_size=12)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames of 20 x 28; the brightness of every pixel is drawn."""
    frames = np.random.default_rng(0).integers(0, 255, (40, 20, 28, 3), dtype=np.uint8)
    return write_video(tmp_path_factory.mktemp("video") / "noise.mp4", frames)


@pytest.fixture(scope="module")
def short_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 frames, fewer than any clip spans."""
    frames = np.random.default_rng(1).integers(0, 255, (5, 20, 28, 3), dtype=np.uint8)
    return write_video(tmp_path_factory.mktemp("short") / "short.mp4", frames)


def views_of(protocol: Protocol, path: Path, seed: int = 0) -> tuple[Tensor, list[View]]:
    dataset = VideoDataset(
        VideoList("a list", (path,), (0,), ("x",)), protocol.sampler, protocol.transform, seed, centre=protocol.centre
    )
    batch = collate([dataset[0]])
    return batch["clips"][0], batch["views"][0]


def ends(found: list[View]) -> list[tuple[int, int]]:
    return [(view.first_frame, view.last_frame) for view in found]


def test_uniform_views_and_the_centre_beside_them(video: Path) -> None:
    clips, found = views_of(Uniform(P, 4, 3), video)
    assert clips.shape == (13, 3, 4, 12, 12)
    assert found[:12] == [View(c, crop, s, s + 6) for c, s in enumerate((0, 11, 22, 33)) for crop in range(3)]
    assert found[12] == View(EXTRA_CLIP, 0, 16, 22)
    assert Uniform(P, 4, 3).num_views == 13


def test_short_video(short_video: Path) -> None:
    assert ends(views_of(Uniform(P, 2, 1), short_video)[1]) == [(0, 1)] * 3  # frames 0, 2, 4, 1
    assert ends(views_of(Dense(P, 2), short_video)[1]) == [(0, 1)] * 2
    clips, found = views_of(MfnetUcf101(P), short_video)
    assert clips.shape == (40, 3, 16, 12, 12)
    assert ends(found) == [(0, 0)] * 40  # frame 30 of 5, looped
    assert ends(views_of(GloreKinetics(EIGHT), short_video)[1]) == [(0, 1)] * 51


def test_named_ones_say_what_they_are() -> None:
    size = "short side 16, crop 12"
    clips = f"of 4 frames, stride 2, {size}, mean of probabilities"
    trained = "(the network was trained on 4 frames, stride 2)"
    assert OneCentreClip(P).name == f"1 clip x 1 crop {clips}"
    assert OfPreprocessing(P).name == f"2 clips x 1 crop {clips}"
    assert Uniform10x3(P).name == Uniform(P).name == f"10 clips x 3 crops {clips}"
    assert Uniform4x3(P).name == f"4 clips x 3 crops {clips}"
    assert Uniform5x1(P).name == f"5 clips x 1 crop {clips}"
    assert Uniform(P, 5, 1, squash=True, average="logits").name == (
        "5 clips x 1 crop of 4 frames, stride 2, squashed to 16 x 16, crop 12, mean of logits"
    )
    assert Dense(P).name == f"windows every 7 frames x 1 crop {clips}"
    assert Dense(P, 1, 3).name == f"windows every 1 frame x 3 crops {clips}"
    assert MfnetUcf101(P).name == (
        "MFNet's 40 random clips x 1 random crop of 16 frames, stride 2, squashed to 16 x 16, crop 12, "
        f"mean of probabilities {trained}"
    )
    glore = f"of 8 frames, stride 8, {size}, mean of probabilities"
    assert GloreKinetics(EIGHT).name == f"GloRe's 10 clips x 5 crops (1 centre, 49 random) {glore}"
    assert GloreKineticsClip(P).name == f"GloRe's 1 clip x 1 crop {glore} {trained}"


@pytest.mark.parametrize(
    ("protocol", "place", "num_views"),
    [
        (OneCentreClip(P), 0, 1),
        (Uniform(P, 3, 3), 4, 9),
        (Uniform(P, 3, 3, squash=True), -1, 10),
        (Uniform(P, 1, 3), 1, 3),
        (Uniform5x1(P), 2, 5),
        (Uniform10x3(P), -1, 31),
        (Dense(P, 3), -1, None),
        (MfnetUcf101(Preprocessing(16, 4, 16, 12)), -1, 41),
        (GloreKinetics(EIGHT), -1, 51),
        (GloreKineticsClip(EIGHT), -1, 2),
    ],
)
def test_the_centre_view_is_that_of_one_centre_clip(
    video: Path, protocol: Protocol, place: int, num_views: int | None
) -> None:
    trained = {4: P, 8: EIGHT, 16: Preprocessing(16, 4, 16, 12)}[protocol.sampler.num_frames]
    clips, found = views_of(protocol, video)
    (alone,), (view,) = views_of(OneCentreClip(trained), video)
    assert (protocol.centre_view, protocol.num_views, protocol.has_extra_centre) == (place, num_views, place == -1)
    assert torch.equal(clips[place], alone)
    assert found[place][2:] == view[2:]
    assert [view.clip == EXTRA_CLIP for view in found] == [False] * (len(found) - (place == -1)) + [True] * (
        place == -1
    )
    assert num_views in (None, len(found))


def test_no_centre_view_of_another_number_of_frames() -> None:
    for protocol, num_views in ((MfnetUcf101(P), 40), (GloreKinetics(P), 50), (GloreKineticsClip(P), 1)):
        assert (protocol.centre_view, protocol.has_extra_centre, protocol.num_views) == (None, False, num_views)


def test_dense_windows_cover_the_last_frame(video: Path) -> None:
    starts = [0, 7, 14, 21, 28, 33]
    assert views_of(Dense(P), video)[1] == [
        *(View(number, 0, start, start + 6) for number, start in enumerate(starts)),
        View(EXTRA_CLIP, 0, 16, 22),
    ]
    overlapping = ends(views_of(Dense(P, 4, 3), video)[1])[:-1]
    assert overlapping[::3] == [(s, s + 6) for s in (0, 4, 8, 12, 16, 20, 24, 28, 32, 33)]


def test_squashed_frames_and_their_corners() -> None:
    rng = np.random.default_rng(0)
    cut = EvenCrops(16, 12, 3, squash=True).draw(20, 28, rng)
    assert (cut.size, cut.corners) == ((16, 16), ((2, 0), (2, 2), (2, 4)))
    assert EvenCrops(16, 12).draw(20, 28, rng).size == (16, 22)
    cuts = RandomCrops(16, 12, squash=True).draw_clips(20, 28, 400, rng)
    assert {cut.size for cut in cuts} == {(16, 16)}
    assert {corner for cut in cuts for corner in cut.corners} == {(top, left) for top in range(5) for left in range(5)}
    with pytest.raises(InputError, match="num_crops must be 1 or 3, got 5"):
        Uniform(P, 10, 5)


def test_glore_has_one_centre_crop() -> None:
    cuts = GloreKinetics(EIGHT).transform.draw_clips(20, 28, 10, np.random.default_rng(3))
    assert [len(cut.corners) for cut in cuts] == [5] * 10
    assert cuts[0].corners[0] == (2, 5)
    assert cuts[0].size == (16, 22)
    others = [corner for cut in cuts for corner in cut.corners][1:]
    assert len(set(others)) > 20
    assert all(0 <= top <= 4 and 0 <= left <= 10 for top, left in others)


def test_random_views_depend_on_seed_and_video_alone(video: Path) -> None:
    protocol = MfnetUcf101(P)
    first, found = views_of(protocol, video)
    again, _ = views_of(protocol, video)
    assert torch.equal(first, again)
    assert len({view.first_frame for view in found}) > 5
    other, _ = views_of(protocol, video, seed=1)
    assert not torch.equal(first, other)
    twice = VideoDataset(VideoList("a list", (video, video), (0, 0), ("x",)), protocol.sampler, protocol.transform)
    assert torch.equal(twice[0]["clips"], first)
    assert not torch.equal(twice[1]["clips"], first)


@pytest.mark.parametrize(
    ("make", "num_resized"),
    [(Uniform10x3, 40), (lambda p: Uniform(p, 10, 1, squash=True), 44), (lambda p: Dense(p, 1, 3), 40)],
)
def test_each_frame_is_decoded_and_resized_once(
    video: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Preprocessing], Protocol], num_resized: int
) -> None:
    """All 40 frames are among the views; when these are squashed the centre clip needs its four in another size too."""
    decoded, resized = [], []
    decode, resize = PyAVReader._decode, transforms.resize

    def counted_decode(self: PyAVReader, wanted: list[int]) -> object:
        decoded.extend(wanted)
        return decode(self, wanted)

    def counted_resize(images: Tensor, size: tuple[int, int]) -> Tensor:
        resized.extend([size] * len(images))
        return resize(images, size)

    monkeypatch.setattr(PyAVReader, "_decode", counted_decode)
    monkeypatch.setattr(transforms, "resize", counted_resize)
    protocol = make(Preprocessing(num_frames=4, frame_stride=1, short_side=16, crop_size=12))
    load_views(video, protocol.sampler, protocol.transform, np.random.default_rng(0), centre=protocol.centre)
    assert decoded == list(range(40))
    assert len(resized) == num_resized


def test_frames_resized_together_or_alone_are_the_same(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = Uniform(P, 4, 3, squash=True)
    together, _ = views_of(protocol, video)
    monkeypatch.setattr("a2video.data.readers.CHUNK_BYTES", 1)
    assert torch.equal(views_of(protocol, video)[0], together)


def test_wrong_numbers() -> None:
    with pytest.raises(ValueError, match="num_clips >= 1, got 4 and 0"):
        Uniform(P, 0)
    with pytest.raises(InputError, match="window_stride must be at least 1, got 0"):
        Dense(P, 0)
    assert isinstance(Dense(P, 2).sampler, ConsecutiveClips)
    assert views.even_views(P)[0].num_clips == 2
