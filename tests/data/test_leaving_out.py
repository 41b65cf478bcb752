"""Leaving out pictures that nobody wants or needs changes no bit of the others."""

import random

import numpy as np
import pytest
from videos import NUM_FRAMES, encode, pack, truth

from a2video.data import pyav_reader
from a2video.data.pyav_reader import PyAVReader


def x264(**options):
    return "libx264", {"x264-params": ":".join(f"{key.replace('_', '-')}={value}" for key, value in options.items())}


def mpeg4(**options):
    return "mpeg4", options


SIZE = (192, 160)  # of MPEG-4, so that no picture is as small as the placeholders that AVI files hold
SETTINGS = {
    "no_pyramid.mp4": x264(keyint=30, bframes=3, b_pyramid="none", ref=4),
    "strict_pyramid.mp4": x264(keyint=30, bframes=5, b_pyramid="strict", ref=4, b_adapt=0),
    "pyramid.mp4": x264(keyint=30, bframes=8, b_pyramid="normal", ref=8, b_adapt=0),
    "pyramid.mkv": x264(keyint=250, bframes=8, b_pyramid="normal", ref=16, b_adapt=2),
    "no_b.mp4": x264(keyint=30, bframes=0, ref=3),
    "one_b.mov": x264(keyint=30, bframes=1, ref=1, weightb=0),
    "weighted.mp4": x264(keyint=40, bframes=3, weightp=2, weightb=1, ref=5),
    "temporal.mp4": x264(keyint=40, bframes=4, direct="temporal", b_adapt=0),
    "open_gop.mp4": x264(keyint=15, bframes=3, open_gop=1, scenecut=0),
    "refresh.mp4": x264(keyint=20, bframes=2, intra_refresh=1),
    "cavlc_slices.mp4": x264(keyint=30, bframes=3, cabac=0, slices=4),
    "b_frames.avi": mpeg4(bf="2", g="24"),
    "five_b.mp4": mpeg4(bf="5", g="50", b_strategy="0"),
    "quarter_pixels.mkv": mpeg4(bf="3", g="30", flags="+qpel+mv4+aic"),
    "p_only.avi": mpeg4(g="20"),
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("leaving_out")


def read(path, requests):
    """The frames of each request by one reader, and how many frames it decoded for them."""
    with PyAVReader(path) as video:
        assert len(video._index.labels) == NUM_FRAMES  # so that frames can be left out
        frames = [video.get_frames(request) for request in requests]
        is_as_promised = len(video._index.labels) == NUM_FRAMES
        # a keyframe of intra refresh does not restore the whole picture, which is noticed
        assert is_as_promised == ("refresh" not in path.name)
    return frames


def check(path, monkeypatch, leaves_out):
    rng = random.Random(0)
    requests = [rng.sample(range(NUM_FRAMES), rng.choice((1, 2, 5, 20))) for _ in range(15)]
    requests += [[number] for number in range(0, NUM_FRAMES, 7)]
    images = truth(path)
    num_decoded = [0]
    seen = PyAVReader._check

    def count(self, frame, number=None):
        num_decoded[-1] += 1
        seen(self, frame, number)

    monkeypatch.setattr(PyAVReader, "_check", count)
    frames = read(path, requests)
    num_decoded.append(0)
    monkeypatch.setattr(pyav_reader, "SKIPPING_CODECS", set())
    for request, some, all_decoded in zip(requests, frames, read(path, requests), strict=True):
        np.testing.assert_array_equal(some, [images[number] for number in request])
        np.testing.assert_array_equal(all_decoded, some)
    assert (num_decoded[0] < 0.9 * num_decoded[1]) == leaves_out


@pytest.mark.parametrize("name", SETTINGS)
def test_not_a_bit_changes(folder, name, monkeypatch):
    codec, options = SETTINGS[name]
    # without B pictures there is nothing to leave out, and whoever starts over decodes everything
    leaves_out = name not in ("no_b.mp4", "p_only.avi", "refresh.mp4")
    path = encode(folder / name, codec, SIZE if codec == "mpeg4" else (96, 64), options=options)
    check(path, monkeypatch, leaves_out)


def test_not_a_bit_changes_in_packed_pictures(folder, monkeypatch):
    source = encode(folder / "to_pack.avi", "mpeg4", SIZE, options={"bf": "2", "g": "24"})
    check(pack(source, folder / "packed.avi"), monkeypatch, leaves_out=True)


def test_baseline_with_slices(folder, monkeypatch):
    options = {"profile": "baseline", "x264-params": "keyint=30:slices=3:ref=2"}
    check(encode(folder / "baseline.mp4", options=options), monkeypatch, leaves_out=False)
