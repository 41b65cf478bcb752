"""Official Kinetics CSV files against the layouts that downloads have. Empty files stand for videos."""

from __future__ import annotations

from pathlib import Path

import pytest

from a2video.data.video_list import NO_LABEL, read_class_names, read_video_list
from a2video.errors import InputError

HEADER = "label,youtube_id,time_start,time_end,split\n"
ROWS = "tai chi,-abc,1,11,val\nmassaging person's head,x_Y-z,417,427,val\n"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write(folder: Path, text: str) -> Path:
    (folder / "k.csv").write_text(text)
    return folder / "k.csv"


@pytest.mark.parametrize(
    "names",
    [
        ("-abc_000001_000011.mp4", "x_Y-z_000417_000427.MKV"),
        ("-abc.webm", "x_Y-z.avi"),
        ("tai chi/-abc_000001_000011.mp4", "massaging person's head/x_Y-z.mp4"),
        ("tai_chi/-abc_000001_000011.mp4", "massaging_person's_head/x_Y-z_000417_000427.mp4"),
        ("val/-abc_000001_000011.mp4", "validate/x_Y-z_000417_000427.mp4"),
        ("val/tai_chi/-abc_000001_000011.mp4", "val/massaging person's head/x_Y-z_000417_000427.mp4"),
    ],
)
def test_layouts(tmp_path: Path, names: tuple[str, str]) -> None:
    decoys = ("-abc_000005_000015.mp4", "-abc_000001_000011.txt", "-abc_000001_000011.mp4.part", "train/-abc.mp4",
              "tai chi/._-abc.mp4", "other/-abc.mp4")  # fmt: skip
    touch(tmp_path, *names, *decoys)
    videos = read_video_list(write(tmp_path, HEADER + ROWS))
    assert videos.paths == tuple(f"{tmp_path}/{name}" for name in names)
    assert videos.class_names == ("massaging person's head", "tai chi")
    assert videos.labels == (1, 0)


def test_columns_in_any_order_without_labels(tmp_path: Path) -> None:
    touch(tmp_path, "v/test/-abc_000001_000011.mp4")
    path = write(tmp_path, "\ufeffsplit,time_end,is_cc,youtube_id,time_start\r\ntest,11.0,0,-abc,1\r\n\r\n")
    videos = read_video_list(path, root=tmp_path / "v")
    assert (videos.paths, videos.labels) == ((f"{tmp_path}/v/test/-abc_000001_000011.mp4",), (NO_LABEL,))


def test_another_clip_of_the_same_video_is_not_used(tmp_path: Path) -> None:
    touch(tmp_path, "tai chi/-abc_000005_000015.mp4", "x_Y-z.mp4")
    message = r"k.csv line 2: video .*tai chi/-abc_000001_000011.mp4 does not exist: set `root`.*data_prep/kinetics.py"
    with pytest.raises(InputError, match=message + ".*allow_missing"):
        read_video_list(write(tmp_path, HEADER + ROWS))
    videos = read_video_list(tmp_path / "k.csv", allow_missing=True)
    assert (videos.missing, videos.paths[0]) == ((0,), f"{tmp_path}/tai chi/-abc_000001_000011.mp4")


def test_several_files_for_one_clip(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "tai chi,-abc,1,11,val\n")
    touch(tmp_path, "-abc.mp4", "-abc_000001_000011.mp4")
    with pytest.raises(
        InputError, match=r"line 2: several files fit -abc_000001_000011: .*-abc.mp4 and .*11.mp4: keep"
    ):
        read_video_list(path)
    touch(tmp_path, "tai chi/-abc_000001_000011.mp4")
    assert read_video_list(path).paths == (f"{tmp_path}/tai chi/-abc_000001_000011.mp4",)
    touch(tmp_path, "tai chi/-abc_000001_000011.webm")
    with pytest.raises(InputError, match=r"several files fit"):
        read_video_list(path)


def test_one_file_for_two_clips(tmp_path: Path) -> None:
    touch(tmp_path, "-abc.mp4")
    with pytest.raises(InputError, match=r"line 3: .*-abc.mp4 was listed before \(.*line 2\)"):
        read_video_list(write(tmp_path, HEADER + "tai chi,-abc,1,11,val\ntai chi,-abc,50,60,val\n"))


def test_splits(tmp_path: Path) -> None:
    touch(tmp_path, "-abc.mp4", "x_Y-z.mp4", "k.mp4")
    path = write(tmp_path, HEADER + ROWS.replace("427,val", "427,validate") + "yoga,k,3,13,train\n")
    with pytest.raises(InputError, match=r"holds the splits train, val: choose one with .*k.csv#train or .*k.csv#val"):
        read_video_list(path)
    for word in ("val", "validate"):
        videos = read_video_list(f"{path}#{word}")
        assert videos.paths == (f"{tmp_path}/-abc.mp4", f"{tmp_path}/x_Y-z.mp4")
        assert videos.source == f"{path}#{word}"
    assert read_class_names(f"{path}#train") == ("yoga",)
    for part in ("test", "train1", ""):
        with pytest.raises(InputError, match=rf"k.csv#{part}: expected a split after the #, and .* holds train, val"):
            read_video_list(f"{path}#{part}")
    with pytest.raises(InputError, match=r"line 4: label 'yoga' is none of the 2 classes"):
        read_video_list(f"{path}#train", class_names=read_class_names(f"{path}#val"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,youtube_id,split\n", r"line 1: expected youtube_id, time_start, time_end .*, found 'label,youtube_id,"),
        ("youtube_id,time_start,time_end,label,label\n", r"line 1: expected youtube_id"),
        (HEADER, r"k.csv is empty"),
        (HEADER + "tai chi,-abc,1,11\n", r"line 2: expected label,youtube_id,.*, found 'tai chi,-abc,1,11'"),
        (HEADER + "tai chi,-abc,one,11,val\n", r"line 2: expected whole seconds in .*, found 'one'"),
        (HEADER + "tai chi,-abc,1.5,11,val\n", r"line 2: expected whole seconds in .*, found '1.5'"),
        (HEADER + "tai chi,-abc,,11,val\n", r"line 2: expected whole seconds in .*, found ''"),
        (HEADER + "tai chi,../a,1,11,val\n", r"line 2: expected a YouTube id, found '../a'"),
        (HEADER + ",-abc,1,11,val\n", r"line 2: expected a label, found none"),
        (HEADER + "tai chi,-abc,1,11,\n", r"line 2: expected the split train, val, .*, found ''"),
        (HEADER + ROWS, r"line 2: video .*-abc_000001_000011.mp4 does not exist \(and 1 more of 2 are missing\)"),
    ],
)
def test_wrong_rows(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_video_list(write(tmp_path, text))


def test_the_official_validation_list(shared: Path, tmp_path: Path) -> None:
    path = shared / "data/kinetics400/val.csv"
    assert read_class_names(path) == read_class_names(shared / "data/kinetics400/class_names.txt")
    touch(tmp_path, "val/abseiling/0wR5jVB-WPk_000417_000427.mp4")
    videos = read_video_list(path, tmp_path, allow_missing=True)
    assert (len(videos), len(videos.class_names), len(videos.present())) == (19906, 400, 1)
