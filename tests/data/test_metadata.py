from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
import zlib
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import moving_square, write_video

from a2video.data import pyav_reader
from a2video.data.metadata import MetadataCache
from a2video.data.packet_index import PacketIndex, _packet_order
from a2video.data.pyav_reader import PyAVReader
from a2video.data.readers import open_video
from a2video.data.transforms import Preprocessing
from a2video.data.views import load_test_views
from a2video.errors import InputError


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "a folder" / "ü 'x'.mp4", moving_square(1, num_frames=40))


def test_the_index_survives_packing() -> None:
    index = PacketIndex(
        num_frames=4,
        labels=np.array([-512, 0, 512, 1024]),
        keyframes=np.array([0, 2]),
        positions=np.array([-512, 512]),
        times=np.array([7, 9, 10, 20]),
        time_base=Fraction(1, 12800),
        is_unpacked=True,
    )
    packed = PacketIndex.from_bytes(index.to_bytes())
    assert (packed.num_frames, packed.time_base, packed.is_unpacked) == (4, Fraction(1, 12800), True)
    for name in ("labels", "keyframes", "positions", "times"):
        assert getattr(packed, name).tolist() == getattr(index, name).tolist()
    counted = PacketIndex.from_bytes(PacketIndex(9).to_bytes())
    assert (counted.num_frames, len(counted.labels), len(counted.times)) == (9, 0, 0)


def test_a_long_index_is_small() -> None:
    times = np.arange(300) * 512
    index = PacketIndex(300, times, np.array([0, 250]), times[[0, 250]], times, Fraction(1, 12800))
    assert len(index.to_bytes()) < 400


@pytest.mark.parametrize(
    ("types", "order"),
    [("IPPP", [0, 1, 2, 3]), ("IPBBPBB", [0, 2, 3, 1, 5, 6, 4]), ("IPBIBB", [0, 2, 1, 4, 5, 3]), ("I", [0])],
)
def test_order_of_mpeg4_pictures(types: str, order: list[int]) -> None:
    assert _packet_order([kind == "B" for kind in types]) == order


def test_a_record_says_what_the_file_is(video: Path) -> None:
    cache = MetadataCache(video.parent / "metadata.sqlite")
    with PyAVReader(video) as reader:
        cache.put(video, reader.record())
    record = cache.get(video)
    assert record is not None
    assert (record.index.num_frames, record.fps, record.width, record.height) == (40, 30.0, 32, 32)
    assert (record.rotation, record.codec, record.container) == (0, "h264", "mov,mp4,m4a,3gp,3g2,mj2")
    assert record.duration_seconds == pytest.approx(40 / 30)
    assert record.index.keyframes.tolist() == [0]


def test_a_reader_with_a_record_gives_the_same_frames_without_scanning(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = MetadataCache(video.parent / "metadata.sqlite")
    with PyAVReader(video) as reader:
        frames, times = reader.get_frames(range(40)), reader.times
        cache.put(video, reader.record())
    monkeypatch.setattr(pyav_reader, "scan", lambda *_: pytest.fail("the packets were scanned"))
    for wanted in ([0], [39, 3, 3, 17], range(40)):
        with open_video(video, cache=cache) as reader:
            assert len(reader) == 40
            assert np.array_equal(reader.times, times)
            assert np.array_equal(reader.get_frames(wanted), frames[list(wanted)])


def test_a_changed_video_and_an_unknown_one_have_no_record(video: Path) -> None:
    cache = MetadataCache(video.parent / "metadata.sqlite")
    with PyAVReader(video) as reader:
        cache.put(video, reader.record())
    other = video.with_name("other.mp4")
    shutil.copy(video, other)
    assert cache.get(other) is None
    assert cache.get(video.with_name("missing.mp4")) is None
    status = video.stat()
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    assert cache.get(video) is None
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.get(video) is not None
    with video.open("ab") as file:
        file.write(b"0")
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.get(video) is None


def test_a_folder_can_be_moved_with_its_cache(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PyAVReader(video) as reader:
        MetadataCache(video.parent / "metadata.sqlite").put(video, reader.record())
    moved = video.parent.rename(tmp_path / "elsewhere")
    assert MetadataCache(moved / "metadata.sqlite").get(moved / video.name) is not None
    monkeypatch.chdir(moved)
    assert MetadataCache("metadata.sqlite").get(video.name) is not None


def _num_frames(cache: MetadataCache, video: Path) -> int:
    record = cache.get(video)
    return -1 if record is None else record.index.num_frames


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_cache_serves_other_processes(video: Path, method: str) -> None:
    cache = MetadataCache(video.parent / "metadata.sqlite")
    with PyAVReader(video) as reader:
        cache.put(video, reader.record())
    assert _num_frames(cache, video) == 40  # opens it here, before the other process starts
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(_num_frames, (cache, video)) == 40


def test_what_is_no_cache_is_an_error(video: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.sqlite does not exist: write it with data_prep/verify.py"):
        MetadataCache(video.parent / "nowhere.sqlite").get(video)
    wrong = video.with_name("wrong.sqlite")
    wrong.write_text("a text")
    with pytest.raises(InputError, match=r"wrong.sqlite is no metadata cache .*: write it anew"):
        MetadataCache(wrong).get(video)
    cache = MetadataCache(video.parent / "metadata.sqlite")
    with PyAVReader(video) as reader:
        cache.put(video, reader.record())
    for blob in (b"", zlib.compress(b"{}\n"), zlib.compress(b"no json")):
        with closing(sqlite3.connect(cache.path)) as connection, connection:
            connection.execute("UPDATE videos SET packet_index = ?", (blob,))
        with pytest.raises(InputError, match=r"metadata.sqlite is no metadata cache of this version"):
            MetadataCache(cache.path).get(video)


def test_links_lead_to_the_same_record(video: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(video.parent)
    with PyAVReader(video) as reader:
        MetadataCache(tmp_path / "link" / "metadata.sqlite").put(video, reader.record())
    assert MetadataCache(video.parent / "metadata.sqlite").get(tmp_path / "link" / video.name) is not None


def test_clips_get_all_frames_that_they_share(video: Path) -> None:
    """Two clips that share frames, and a clip that repeats one, get them all."""
    p = Preprocessing(num_frames=4, frame_stride=12, short_side=32, crop_size=32, num_clips=2, num_crops=1)
    views = load_test_views(video, p)  # [0, 12, 24, 36] and [3, 15, 27, 39]
    single = Preprocessing(num_frames=4, frame_stride=0, short_side=32, crop_size=32, num_clips=2, num_crops=1)
    ends = load_test_views(video, single)  # frame 0 and frame 39, four times each
    for time in range(4):
        assert bool((ends[0, :, time] == views[0, :, 0]).all())
        assert bool((ends[1, :, time] == views[1, :, 3]).all())
