from __future__ import annotations

import numpy as np
import pytest
import torch

from a2video.data.transforms import EvenCrops, Preprocessing, RandomCrop, Transform, resize, short_side_size
from a2video.errors import InputError


def coordinates(height: int, width: int, num_frames: int = 2) -> np.ndarray:
    """Frames whose red is the row and whose green is the column."""
    rows, columns = np.mgrid[:height, :width]
    frame = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    return np.repeat(frame[None], num_frames, axis=0)


def cut(transform: Transform, frames: np.ndarray, seed: int = 0) -> torch.Tensor:
    """(N, num_crops, 3, h, w)."""
    drawn = transform.draw(frames.shape[1], frames.shape[2], np.random.default_rng(seed))
    return torch.stack([torch.stack(drawn.crops(image)) for image in drawn.resize(frames)])


def corner(crop: torch.Tensor) -> tuple[int, int]:
    """(row, column) of a crop's (3, h, w) upper left pixel."""
    return int(crop[0, 0, 0]), int(crop[1, 0, 0])


def test_resize_keeps_the_aspect() -> None:
    assert short_side_size(60, 100, 30) == (30, 50)
    assert short_side_size(101, 60, 20) == (34, 20)
    assert short_side_size(40, 60, 80) == (80, 120)
    images = torch.from_numpy(coordinates(40, 60)).permute(0, 3, 1, 2)
    assert resize(images, (80, 120)).shape == (2, 3, 80, 120)
    assert torch.equal(resize(images, (40, 60)), images)


def test_resize_is_antialiased() -> None:
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[:, :, :, ::4] = 200  # one column in four
    assert (resize(stripes, (64, 16))[:, :, :, 2:-2] == 50).all()  # without antialiasing it would be 0
    assert (resize(stripes.mT, (16, 64))[:, :, 2:-2] == 50).all()


def test_even_crops_of_a_wide_and_a_tall_video() -> None:
    wide, tall = coordinates(20, 40), coordinates(40, 20)
    assert [corner(crop) for crop in cut(EvenCrops(20, 16, 1), wide)[0]] == [(2, 12)]
    assert [corner(crop) for crop in cut(EvenCrops(20, 16, 3), wide)[0]] == [(2, 0), (2, 12), (2, 24)]
    assert [corner(crop) for crop in cut(EvenCrops(20, 16, 3), tall)[0]] == [(0, 2), (12, 2), (24, 2)]
    assert cut(EvenCrops(20, 16, 3), wide).shape == (2, 3, 3, 16, 16)


def test_random_crop_reaches_everywhere_and_flips_whole_clips() -> None:
    transform = RandomCrop((20, 20), 18, horizontal_flip=0.5)
    corners, flipped = set(), 0
    for seed in range(300):
        crops = cut(transform, coordinates(20, 21), seed)
        assert crops.shape == (2, 1, 3, 18, 18)
        crop = crops[0, 0]
        assert torch.equal(crops[1, 0], crop)  # every frame is treated alike
        is_flipped = bool(crop[1, 0, 0] > crop[1, 0, -1])
        flipped += is_flipped
        corners.add(corner(crop.flip(-1) if is_flipped else crop))
    assert corners == {(row, column) for row in range(3) for column in range(4)}
    assert 110 < flipped < 190


def test_random_short_side_covers_its_range() -> None:
    transform = RandomCrop((10, 12), 10, horizontal_flip=0.0)
    frames = coordinates(200, 200, 1)
    reach = {int(cut(transform, frames, seed)[0, 0, 0].max()) // 10 for seed in range(60)}
    assert len(reach) > 1


def test_normalize() -> None:
    p = Preprocessing(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    clips = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 2, 1, 1).expand(1, 3, 2, 1, 1)
    expected = torch.tensor([[-1.0, 1.0], [-1.0, 3.0], [0.0, 1.0]])
    assert torch.allclose(p.normalize(clips)[0, :, :, 0, 0], expected)


def test_default_normalisation_is_the_first_authors() -> None:
    """Mean 124, 117, 104 subtracted, then times 0.0167 (protocols.md 2.1)."""
    clips = torch.full((1, 3, 1, 1, 1), 200, dtype=torch.uint8)
    expected = torch.tensor([76.0, 83.0, 96.0]) * 0.0167
    assert torch.allclose(Preprocessing().normalize(clips).flatten(), expected, atol=1e-5)


def test_preprocessing_survives_plain_data() -> None:
    p = Preprocessing(num_frames=16, mean=(0.1, 0.2, 0.3), num_crops=1, target_fps=15.0, short="error")
    assert Preprocessing.from_dict(p.to_dict()) == p
    with pytest.raises(InputError, match="not preprocessing settings"):
        Preprocessing.from_dict({"frames": 3})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"frame_stride": -1}, "frame_stride must be at least 0, got -1"),
        ({"short_side": 100}, r"crop_size \(224\) must not exceed short_side \(100\)"),
        ({"num_crops": 2}, "num_crops must be 1 or 3, got 2"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
        ({"target_fps": 0.0}, "target_fps must be positive, got 0"),
        ({"short": "stretch"}, "short must be loop, repeat_last or error, got 'stretch'"),
    ],
)
def test_wrong_preprocessing(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocessing(**settings)


def test_one_view_keeps_everything_but_the_views() -> None:
    p = Preprocessing(num_frames=16, num_clips=10, num_crops=3)
    assert (p.num_views, p.one_view.num_views) == (30, 1)
    assert p.one_view == Preprocessing(num_frames=16, num_clips=1, num_crops=1)


def test_wrong_augmentation() -> None:
    with pytest.raises(InputError, match="expected crop_size <= smallest <= largest short side, got 20, 18 and 30"):
        RandomCrop((18, 30), 20, 0.5)
    with pytest.raises(InputError, match=r"probability in \[0, 1\], got 2"):
        RandomCrop((20, 30), 20, 2)
