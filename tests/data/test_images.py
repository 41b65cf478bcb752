"""Pictures go through the same reader, lists, data set, training and testing as videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from a2video.data.readers import VideoError, open_video
from a2video.data.transforms import RandomArea
from a2video.data.video_list import read_video_list
from a2video.errors import InputError


def test_a_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    with open_video(tmp_path / "plain.png") as video:
        assert len(video) == 1
        assert np.array_equal(video.get_frames([0, 0]), np.stack([pixels, pixels]))
        with pytest.raises(IndexError, match=r"frame 1 is outside \[0, 1\)"):
            video.get_frames([1])
    turned = Image.fromarray(pixels)
    exif = turned.getexif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    turned.save(tmp_path / "turned.png", exif=exif)
    with open_video(tmp_path / "turned.png") as video:
        assert np.array_equal(video.get_frames([0])[0], np.rot90(pixels, -1))
    gray = pixels[:, :, 0]
    for name, image in (("gray.png", gray), ("gray 16 bits.png", gray.astype(np.uint16) << 8)):
        Image.fromarray(image).save(tmp_path / name)
        with open_video(tmp_path / name) as video:
            assert np.array_equal(video.get_frames([0])[0], np.repeat(gray[:, :, None], 3, axis=2))


def test_broken_pictures(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(VideoError, match=r"text\.jpg: is no picture that can be decoded"):
        open_video(tmp_path / "text.jpg")
    with pytest.raises(VideoError, match=r"none\.jpg: does not exist"):
        open_video(tmp_path / "none.jpg")


def test_folders_of_pictures_are_lists(pictures: Path, tmp_path: Path) -> None:
    videos = read_video_list(pictures / "train")
    assert (len(videos), videos.class_names) == (16, ("across", "down"))
    (tmp_path / "x").mkdir()
    for name in ("clip.mp4", "cover.jpg"):
        (tmp_path / "x" / name).touch()
    assert [Path(path).name for path in read_video_list(tmp_path).paths] == ["clip.mp4"]  # a cover is no sample


def test_random_area_stays_within_its_range() -> None:
    rows, columns = np.mgrid[:40, :60]
    frames = np.stack([rows * 4, columns * 4, rows], axis=-1).astype(np.uint8)[None]
    shares = []
    for seed in range(200):
        drawn = RandomArea((0.2, 0.5), 16, 0.0).draw(40, 60, np.random.default_rng(seed))
        [crop] = drawn.crops(drawn.resize(frames)[0])
        assert crop.shape == (3, 16, 16)
        red, green = crop[0].float() / 4, crop[1].float() / 4
        height, width = (red[-1, 0] - red[0, 0]) * 16 / 15, (green[0, -1] - green[0, 0]) * 16 / 15
        assert 0.65 < width / height < 1.55
        shares.append(float(height * width) / 2400)
    assert min(shares) < 0.25
    assert max(shares) > 0.42
    assert 0.17 < np.mean(shares) < 0.5
    with pytest.raises(InputError, match=r"train_area is a smallest and a largest share in \(0, 1\], got 0 and 2"):
        RandomArea((0, 2), 16, 0.0)
