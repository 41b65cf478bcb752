from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from a2video.data.video_list import NO_LABEL, VideoList, read_class_names, read_video_list
from a2video.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Empty files stand for videos: reading a list opens none of them."""
    for name in ("fight/a b.mp4", "fight/c.avi", "fight/._a b.mp4", "calm/d,e.MKV", "calm/notes.txt"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).touch()
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "videos" / "list.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_with_names(folder: Path) -> None:
    videos = read_video_list(write(folder, 'path,label\nfight/a b.mp4,fight\n\n"calm/d,e.MKV",calm\n'))
    assert videos.class_names == ("calm", "fight")
    assert videos.labels == (1, 0)
    assert videos.paths == (f"{folder}/videos/fight/a b.mp4", f"{folder}/videos/calm/d,e.MKV")


def test_csv_with_numbers_counts_from_zero(folder: Path) -> None:
    videos = read_video_list(write(folder, "path,label\nfight/a b.mp4,2\nfight/c.avi,0\n"))
    assert videos.class_names == ("0", "1", "2")
    assert videos.labels == (2, 0)


def test_numbers_index_given_names(folder: Path) -> None:
    path = write(folder, "path,label\nfight/a b.mp4,2\nfight/c.avi,0\n")
    assert read_video_list(path, class_names=["x", "y", "z"]).labels == (2, 0)


def test_numbers_for_names_that_nobody_gave_an_order(folder: Path) -> None:
    path = write(folder, "path,label\nfight/a b.mp4,1\nfight/c.avi,0\n")
    with pytest.raises(
        InputError,
        match=r"list.csv line 2: found the number 1, where the 2 classes of train.csv have names \(x, y\): give names, "
        r"or set data.class_names to a file with one class name on each line, whose first is number 0",
    ):
        read_video_list(path, class_names=["x", "y"], classes_of="train.csv")
    assert read_video_list(path, class_names=["0", "1"], classes_of="train.csv").labels == (1, 0)
    path = write(folder, "path,label\nfight/a b.mp4,x\n")
    with pytest.raises(InputError, match=r"line 2: label 'x' is none of the 2 classes of train.csv \(0, 1\): correct"):
        read_video_list(path, class_names=["0", "1"], classes_of="train.csv")


def test_numbers_and_names_are_not_mixed(folder: Path) -> None:
    path = write(folder, "path,label\nfight/a b.mp4,2\nfight/c.avi,y\n")
    with pytest.raises(InputError, match=r"line 2: found the number 2, where other lines have class names"):
        read_video_list(path, class_names=["x", "y", "z"])


def test_numbers_from_one(folder: Path) -> None:
    """Counting from one would move every class by one place."""
    path = write(folder, "path,label\nfight/a b.mp4,2\nfight/c.avi,1\n")
    with pytest.raises(InputError, match=r"line 2: the list's labels are 1 to 2 and none is 0: expected class numbers"):
        read_video_list(path)
    with pytest.raises(InputError, match=r"line 2: label '2' is none of the 2 classes \(x, y\): count .* from zero"):
        read_video_list(path, class_names=["x", "y"])


def test_byte_order_mark_and_root(folder: Path) -> None:
    path = folder / "list.csv"
    path.write_text("\ufeffpath,label\r\na b.mp4,x\r\n", encoding="utf-8")
    assert read_video_list(path, root=folder / "videos/fight").paths == (f"{folder}/videos/fight/a b.mp4",)


def test_digest_tells_lists_apart_but_not_places() -> None:
    first = VideoList("", ("/a/train/left/1.mp4", "/a/train/right/2.mp4"), (0, 1), ("left", "right"))
    assert first.digest == replace(first, paths=("b/left/1.mp4", "b/right/2.mp4")).digest
    for paths, labels in (
        (("/a/train/left/1.mp4", "/a/train/right/3.mp4"), (0, 1)),
        (("/a/train/right/2.mp4", "/a/train/left/1.mp4"), (1, 0)),
        (first.paths, (1, 0)),
    ):
        assert first.digest != replace(first, paths=paths, labels=labels).digest
    assert replace(first, paths=("/mixed.mp4", "mixed.mp4")).digest


def test_csv_without_labels(folder: Path) -> None:
    videos = read_video_list(write(folder, "path\nfight/c.avi\n"))
    assert videos.labels == (NO_LABEL,)


def test_folder_of_class_folders(folder: Path) -> None:
    videos = read_video_list(folder / "videos")
    assert videos.class_names == ("calm", "fight")
    assert [Path(path).name for path in videos.paths] == ["d,e.MKV", "a b.mp4", "c.avi"]
    assert videos.labels == (0, 1, 1)


def test_folder_of_videos_has_no_labels(folder: Path) -> None:
    assert read_video_list(folder / "videos/fight").labels == (NO_LABEL, NO_LABEL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nfight/none.mp4,x\n", r"list.csv line 2: video .*none.mp4 does not exist: correct the list"),
        (
            "path,label\nno1.mp4,x\nno2.mp4,x\n",
            r"line 2: video .*no1.mp4 does not exist \(and 1 more of 2 are missing\)",
        ),
        ("path,label\n", r"list.csv is empty"),
        ("", r"list.csv is empty"),
        ("name,label\na.mp4,b\n", r"line 1: expected the header 'path,label'.*, found 'name,label'"),
        ("path,label\na\0b.mp4,b\n", r"line 2: found a NUL byte"),
        ("path,label\nfight/c.avi," + 5000 * "9" + "\n", r"line 2: expected class numbers from zero, found 9999"),
        ("path,label\n" + 9000 * "x" + ".mp4,b\n", r"line 2: video .*x.mp4 does not exist: correct the list"),
        ("path,label\n" + 200000 * "x" + ".mp4,b\n", r"line 2: field larger than field limit"),
        ("path,label\nfight/c.avi\n", r"line 2: expected path,label, found 'fight/c.avi'"),
        ("path,label\nfight/c.avi,\n", r"line 2: expected path,label, found 'fight/c.avi,'"),
        ("path,label\nfight/c.avi,x\nfight/c.avi,x\n", r"line 3: .*c.avi was listed before \(.*line 2\): remove one"),
        (
            "path,label\nfight/c.avi,x\nfight/c.avi,y\n",
            r"line 3: .*c.avi was listed before \(.*line 2\) with the label 'x', and has 'y' here: remove one",
        ),
        ("path,label\nfight/c.avi,3000000\n", r"label 3000000 would make 3000001 classes"),
    ],
)
def test_wrong_csv(folder: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_video_list(write(folder, text))


@pytest.mark.parametrize("label", ["z", "2", "-1"])
def test_label_that_is_no_class(folder: Path, label: str) -> None:
    path = write(folder, f"path,label\nfight/c.avi,{label}\n")
    with pytest.raises(InputError, match=rf"list.csv line 2: label '{label}' is none of the 2 classes \(x, y\)"):
        read_video_list(path, class_names=["x", "y"])


def test_numbers_are_not_mixed_with_number_like_names(folder: Path) -> None:
    path = write(folder, "path,label\nfight/c.avi,1\nfight/a b.mp4,0\n")
    with pytest.raises(InputError, match=r"line 3: label '0' is none of the 2 classes \(1, 2\)"):
        read_video_list(path, class_names=["1", "2"])


def test_videos_that_a_folder_list_would_pass_over(folder: Path) -> None:
    (folder / "videos/fight/more").mkdir()
    with pytest.raises(InputError, match=r"more is a folder inside a class folder"):
        read_video_list(folder / "videos")
    (folder / "videos/loose.mp4").touch()
    with pytest.raises(InputError, match=r"loose\.mp4 lies beside class folders"):
        read_video_list(folder / "videos")


def test_missing_list_and_binary_list(folder: Path) -> None:
    with pytest.raises(InputError, match=r"list .*nowhere.csv does not exist"):
        read_video_list(folder / "nowhere.csv")
    (folder / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match=r"binary.csv cannot be read as a text file"):
        read_video_list(folder / "binary.csv")


def test_empty_class_folder(folder: Path) -> None:
    (folder / "videos/nothing").mkdir()
    with pytest.raises(InputError, match=r"class folder .*nothing has no video and no picture"):
        read_video_list(folder / "videos")


def test_class_names_of_a_text_file(folder: Path) -> None:
    path = folder / "names.txt"
    path.write_text("b\na\n\n")
    assert read_class_names(path) == ("b", "a")
    path.write_text("b\nb\n")
    with pytest.raises(InputError, match="names the class 'b' twice"):
        read_class_names(path)


def test_real_lists(shared: Path) -> None:
    fights = shared / "data/surveillance_fights"
    train, test = (read_video_list(fights / f"{split}.csv") for split in ("train", "test"))
    assert (len(train), len(test)) == (103, 78)
    assert train.class_names == test.class_names == ("fight", "no_fight")
    assert max(test.labels.count(0), test.labels.count(1)) / 78 == pytest.approx(0.654, abs=5e-4)
    assert len(read_video_list(fights)) == 181
    assert len(read_class_names(shared / "data/kinetics400/class_names.txt")) == 400
