"""Lists as they come: lines without a header, UCF-101, HMDB-51. Empty files stand for videos: none is opened."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from a2video.data.list_formats import split_line
from a2video.data.video_list import NO_LABEL, read_class_names, read_video_list
from a2video.errors import InputError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("a.mp4 1", ("a.mp4", "1")),
        ("a b.MP4\tplaying cards, badly", ("a b.MP4", "playing cards, badly")),
        ("d,e.mkv , x", ("d,e.mkv", "x")),
        ("my.avi files/c.avi tai chi", ("my.avi files/c.avi", "tai chi")),
        ('"a, b.mp4","x ""y"", z"', ("a, b.mp4", 'x "y", z')),
        ('"a b.mp4" 3', ("a b.mp4", "3")),
        ('"a".mp4 3', ('"a".mp4', "3")),
        ('a.mp4,"x, y"', ("a.mp4", "x, y")),
        ("a.mp4 b.mp4", ("a.mp4 b.mp4", None)),
        ("ü/.hidden.webm", ("ü/.hidden.webm", None)),
        ("picture.jpeg cat", ("picture.jpeg", "cat")),
        ("air drumming", None),
        ("path,label", None),
        ("a.mp4,,x", None),
        ("a.xyz 1", None),
        ('"a" 1', None),
    ],
)
def test_where_a_path_ends(line: str, parts: tuple[str, str | None] | None) -> None:
    assert split_line(line) == parts


def test_a_line_meant_to_be_slow_is_not() -> None:
    start = time.perf_counter()
    split_line(".mp4 " * 20_000 + " " * 20_000 + ",,")
    split_line('"' * 40_000)
    assert time.perf_counter() - start < 1


def test_lines_without_a_header(tmp_path: Path) -> None:
    touch(tmp_path, "v/a b.mp4", 'v/it\'s, "c" ü.avi', "v/d.mkv")
    path = tmp_path / "list.txt"
    path.write_bytes('\ufeffa b.mp4 tai chi\r\n\r\nit\'s, "c" ü.avi,x, y\r\n  d.mkv\ttai chi\r\n'.encode())
    videos = read_video_list(path, root=tmp_path / "v")
    assert [Path(video).name for video in videos.paths] == ["a b.mp4", 'it\'s, "c" ü.avi', "d.mkv"]
    assert videos.class_names == read_class_names(path) == ("tai chi", "x, y")
    assert videos.labels == (0, 1, 0)


def test_lines_of_paths_only(tmp_path: Path) -> None:
    touch(tmp_path, "a b.mp4", "c.avi")
    (tmp_path / "list.txt").write_text(f"a b.mp4\n{tmp_path}/c.avi\n")
    videos = read_video_list(tmp_path / "list.txt")
    assert videos.paths == (f"{tmp_path}/a b.mp4", f"{tmp_path}/c.avi")
    assert videos.labels == (NO_LABEL, NO_LABEL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4 x\nc.avi\n", r"list.txt line 2: found no label in 'c.avi', but .*line 1 has one"),
        ("a.mp4\n\nc.avi x\n", r"list.txt line 3: found a label in 'c.avi x', but .*line 1 has none"),
        ("a.mp4 x\nc.xyz y\n", r"list.txt line 2: expected a path that ends with a video's suffix.*, found 'c.xyz y'"),
        ("a.mp4 250 3\nc.avi 90 1\n", r"line 1: expected one label after the path, found '250 3'"),
        ("a.mp4 x\nA.mp4 x\n", r"line 2: video .*A.mp4 does not exist: correct the list"),
        ("a.mp4 x\n./a.mp4 x\n", r"line 2: .*a.mp4 was listed before \(.*line 1\)"),
        ("a.mp4/b.mp4 x\n", r"line 1: video .*a.mp4/b.mp4 does not exist"),
        ("folder.mp4 x\n", r"line 1: video .*folder.mp4 does not exist"),
        ("http://x/y.mp4 x\n", r"line 1: video .*y.mp4 does not exist"),
        ("a\0.mp4 x\n", r"line 1: found a NUL byte"),
        ("\n \n", r"list.txt is empty"),
    ],
)
def test_wrong_lines(tmp_path: Path, text: str, message: str) -> None:
    touch(tmp_path, "a.mp4", "c.avi", "folder.mp4/b.mp4")
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_video_list(tmp_path / "list.txt")


def test_paths_outside_the_folder_and_links(tmp_path: Path) -> None:
    touch(tmp_path, "v/a.mp4", "lists/x")
    (tmp_path / "lists/link.mp4").symlink_to(tmp_path / "v/a.mp4")
    (tmp_path / "lists/circle.mp4").symlink_to("circle.mp4")
    (tmp_path / "lists/list.txt").write_text(f"../v/a.mp4 x\n{tmp_path}/v/a.mp4 x\nlink.mp4 x\n")
    assert len(read_video_list(tmp_path / "lists/list.txt")) == 3
    (tmp_path / "lists/list.txt").write_text("circle.mp4 x\n")
    with pytest.raises(InputError, match=r"circle.mp4 does not exist"):
        read_video_list(tmp_path / "lists/list.txt")
    (tmp_path / "lists/circle.mp4").rename(tmp_path / "v/circle.mp4")
    with pytest.raises(InputError, match=r"circle.mp4 does not exist"):  # no file of a class folder is passed over
        read_video_list(tmp_path / "v")


@pytest.mark.parametrize("root", [None, "elsewhere"])
def test_relative_folders_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str | None) -> None:
    touch(tmp_path, "data/v/x/a.mp4", "elsewhere/x/a.mp4")
    (tmp_path / "data/list.txt").write_text("./v//x/a.mp4 x\n" if root is None else "x/a.mp4 x\n")
    monkeypatch.chdir(tmp_path)
    assert read_video_list("data/v", root).paths == ("data/v/x/a.mp4",)  # a folder's videos are in that folder
    assert read_video_list("data/v/x", root).paths == ("data/v/x/a.mp4",)
    expected = ("data/v/x/a.mp4",) if root is None else ("elsewhere/x/a.mp4",)
    assert read_video_list("data/list.txt", root).paths == expected
    monkeypatch.chdir(tmp_path / "data/v/x")
    assert read_video_list(".", root).paths == ("a.mp4",)
    (tmp_path / "data/v/x/list.txt").write_text("a.mp4 x\n")
    assert read_video_list("list.txt").paths == ("a.mp4",)


def test_missing_videos_are_kept_or_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "d.mp4")
    (tmp_path / "list.txt").write_text("a.mp4 x\nb.mp4 y\nc.mp4 z\nd.mp4 y\n")
    with pytest.raises(InputError, match=r"line 1: video .*a.mp4 does not exist \(and 1 more of 4 are missing\)"):
        read_video_list(tmp_path / "list.txt")
    videos = read_video_list(tmp_path / "list.txt", allow_missing=True)
    assert (len(videos), videos.missing, videos.num_left_out) == (4, (0, 2), 0)
    present = videos.present()
    assert present.paths == (f"{tmp_path}/b.mp4", f"{tmp_path}/d.mp4")
    assert (present.labels, present.class_names) == ((1, 1), ("x", "y", "z"))  # the classes are those of the list
    assert (present.missing, present.num_left_out) == ((), 2)
    (tmp_path / "list.txt").write_text("a.mp4 x\nc.mp4 z\n")
    with pytest.raises(InputError, match=r"a.mp4 does not exist \(and 1 more of 2 are missing\)"):
        read_video_list(tmp_path / "list.txt", allow_missing=True)  # of all being missing, the root is the cause


@pytest.fixture
def ucf(tmp_path: Path) -> Path:
    """Classes that do not stand in alphabetical order."""
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/classInd.txt").write_bytes(b"1 Punch\r\n2 Biking\r\n3 Tai Chi\r\n")
    (tmp_path / "lists/trainlist01.txt").write_bytes(b"Punch/v_1.avi 1\r\nTai Chi/v_2.avi 3\r\n")
    (tmp_path / "lists/testlist01.txt").write_text("Biking/v_3.avi\nPunch/v_4.avi\n\n")
    touch(tmp_path, "UCF/Punch/v_1.avi", "UCF/Tai Chi/v_2.avi", "UCF/Biking/v_3.avi", "UCF/Punch/v_4.avi")
    return tmp_path


def test_ucf101(ucf: Path) -> None:
    train, test = (read_video_list(ucf / f"lists/{name}list01.txt", ucf / "UCF") for name in ("train", "test"))
    assert train.class_names == test.class_names == ("Punch", "Biking", "Tai Chi")
    assert (train.labels, test.labels) == ((0, 2), (1, 0))
    assert train.paths == (f"{ucf}/UCF/Punch/v_1.avi", f"{ucf}/UCF/Tai Chi/v_2.avi")
    for name in ("classInd.txt", "trainlist01.txt", "testlist01.txt"):
        assert read_class_names(ucf / "lists" / name) == ("Punch", "Biking", "Tai Chi")


def test_ucf101_in_one_folder(ucf: Path) -> None:
    touch(ucf, "flat/v_1.avi", "flat/v_2.avi")
    assert read_video_list(ucf / "lists/trainlist01.txt", ucf / "flat").paths[1] == f"{ucf}/flat/v_2.avi"
    message = (
        r"video .*flat/Biking/v_3.avi does not exist .*: set `root` to .*or set allow_missing.*data_prep/ucf101.py"
    )
    with pytest.raises(InputError, match=message):
        read_video_list(ucf / "lists/testlist01.txt", ucf / "flat")


def test_classes_in_another_order_are_matched_by_name(ucf: Path) -> None:
    given = ["Tai Chi", "Punch", "Biking"]
    assert read_video_list(ucf / "lists/testlist01.txt", ucf / "UCF", given).labels == (2, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["Biking", "Punch"], r"of 3 classes has the class 'Tai Chi', which is none of the 2 given"),
        (["Biking", "Punch", "Tai Chi", "Yoga"], r"of 3 classes lacks 'Yoga', which is one of the 4 given classes"),
    ],
)
def test_another_class_map(ucf: Path, given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_video_list(ucf / "lists/testlist01.txt", ucf / "UCF", given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Punch/v_1.avi 1\nBiking/v_3.avi 1\n", r"line 2: label 1 contradicts the folder 'Biking', which is class 2"),
        ("Punch/v_1.avi 0\n", r"line 1: label 0 contradicts the folder 'Punch'"),
        ("Jumping/v_1.avi\n", r"line 1: expected CLASS/VIDEO with a class of classInd.txt, found 'Jumping/v_1.avi'"),
        ("v_1.avi 1\n", r"line 1: expected CLASS/VIDEO with a class of classInd.txt, found 'v_1.avi'"),
    ],
)
def test_wrong_ucf101(ucf: Path, text: str, message: str) -> None:
    (ucf / "lists/trainlist01.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_video_list(ucf / "lists/trainlist01.txt", ucf / "UCF")


@pytest.mark.parametrize("text", ["1 Punch\n3 Biking\n", "1 Punch\nBiking\n", "0 Punch\n", "1\n"])
def test_wrong_class_index(ucf: Path, text: str) -> None:
    (ucf / "lists/classInd.txt").write_text(text)
    with pytest.raises(InputError, match=r"classInd.txt line [12]: expected '[12] NAME', found '"):
        read_class_names(ucf / "lists/classInd.txt")


@pytest.fixture
def hmdb(tmp_path: Path) -> Path:
    folder = tmp_path / "splits # of HMDB"
    folder.mkdir()
    (folder / "brush_hair_test_split1.txt").write_text("a #1.avi 1 \nb.avi 2 \nc.avi 0 \n")
    (folder / "cartwheel_test_split1.txt").write_text("d.avi 2 \ne.avi 1 \n")
    (folder / "brush_hair_test_split2.txt").write_text("b.avi 1 \n")
    touch(tmp_path, "v/brush_hair/a #1.avi", "v/brush_hair/b.avi", "v/brush_hair/c.avi", "v/d.avi", "v/cartwheel/e.avi")
    return folder


def test_hmdb51(hmdb: Path) -> None:
    root = hmdb.parent / "v"
    train, test = (read_video_list(f"{hmdb}#{part}", root) for part in ("train1", "test1"))
    assert train.paths == (f"{root}/brush_hair/a #1.avi", f"{root}/cartwheel/e.avi")
    assert test.paths == (f"{root}/brush_hair/b.avi", f"{root}/d.avi")
    assert train.class_names == test.class_names == read_class_names(f"{hmdb}#test1") == ("brush_hair", "cartwheel")
    assert train.labels == test.labels == (0, 1)
    assert train.source == f"{hmdb}#train1"
    assert len(read_video_list(f"{hmdb}#train2", root)) == 1


def test_wrong_hmdb51(hmdb: Path) -> None:
    for part in ("train3", "val1", "train"):
        with pytest.raises(InputError, match=rf"#{part}: expected train or test and one of the splits \[1, 2\] after"):
            read_video_list(f"{hmdb}#{part}")
    with pytest.raises(
        InputError, match=r"folder of split files such as brush_hair_test_split1.txt: choose with .*#tr"
    ):
        read_video_list(hmdb)
    (hmdb / "cartwheel_test_split1.txt").write_text("d.avi 2\ne.avi 3\n")
    with pytest.raises(InputError, match=r"cartwheel_test_split1.txt line 2: expected 0, 1 or 2 after .*, found '3'"):
        read_video_list(f"{hmdb}#test1")


def test_a_number_sign_where_there_are_no_splits(ucf: Path) -> None:
    with pytest.raises(InputError, match=r"#train1 does not exist, and .*trainlist01.txt has no splits to choose"):
        read_video_list(f"{ucf}/lists/trainlist01.txt#train1", ucf / "UCF")
    with pytest.raises(InputError, match=r"list .*none.csv#val does not exist"):
        read_video_list(f"{ucf}/none.csv#val")
    touch(ucf, "list #1/x/a.mp4")
    assert len(read_video_list(f"{ucf}/list #1")) == 1


def test_quickly_and_without_looking_at_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"class {number % 10}/{number}.mp4" for number in range(2000)]
    touch(tmp_path, *names)
    (tmp_path / "list.txt").write_text("".join(f"{name} {name[:7]}\n" for name in names))
    monkeypatch.setattr("os.path.isfile", lambda path: pytest.fail(f"asked for {path}"))
    assert len(read_video_list(tmp_path / "list.txt")) == 2000


def test_real_ucf101(shared: Path, tmp_path: Path) -> None:
    lists = shared / "data/ucf101"
    counts = {"trainlist": (9537, 9586, 9624), "testlist": (3783, 3734, 3696)}
    videos = {line.split()[0] for path in lists.glob("*list0?.txt") for line in path.read_text().splitlines() if line}
    for folder in {video.partition("/")[0] for video in videos}:
        (tmp_path / folder).mkdir()
    for video in videos:
        (tmp_path / video).touch()
    for name, numbers in counts.items():
        found = [read_video_list(lists / f"{name}0{split}.txt", tmp_path) for split in (1, 2, 3)]
        assert tuple(map(len, found)) == numbers
        assert {len(set(videos.labels)) for videos in found} == {len(videos.class_names) for videos in found} == {101}
