"""The scripts that make lists of Kinetics and UCF-101: what is present, what is missing, and what they say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from a2video.data.video_list import read_class_names, read_video_list

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data_prep"))
import kinetics
import ucf101

HEADER = "label,youtube_id,time_start,time_end,split\n"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def status_of(script: object, *arguments: object) -> int:
    try:
        script.main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


class TestKinetics:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        rows = 'tai chi,-abc,1,11,val\nmassaging person\'s head,x_Y-z,417,427,val\n"say ""ü"", twice",u,0,10,val\n'
        (tmp_path / "val.csv").write_text(HEADER + rows)
        touch(tmp_path, "my 'videos'/massaging person's head/x_Y-z_000417_000427.mp4", "my 'videos'/-abc.txt")
        touch(
            tmp_path, "my 'videos'/say \"ü\", twice/u_000000_000010.webm", "my 'videos'/tai_chi/-abc_000005_000015.mp4"
        )
        return tmp_path

    def run(self, data: Path, *more: object, out: str = "k.csv") -> int:
        arguments = ("--csv", data / "val.csv", "--videos", data / "my 'videos'", "--out", data / "new" / out)
        return status_of(kinetics, *arguments, *more)

    def test_lists(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(data) == 0
        videos = read_video_list(data / "new/k.csv")
        assert [Path(path).name for path in videos.paths] == ["x_Y-z_000417_000427.mp4", "u_000000_000010.webm"]
        assert videos.class_names == ("massaging person's head", 'say "ü", twice')
        assert (data / "new/k_missing.csv").read_text() == HEADER + "tai chi,-abc,1,11,val\n"
        said = capsys.readouterr().out.splitlines()
        assert said[0].startswith("val: 2 of 3 are present (")
        assert said[2].endswith(
            "are named by no list, such as " + repr(f"{data}/my 'videos'/tai_chi/-abc_000005_000015.mp4")
        )
        assert said[2].startswith("1 videos in ")
        assert said[3] == "1 of 3 classes have no video, such as 'tai chi'"
        assert said[-1] == "Listed 2 of 3 videos"
        assert sorted(path.name for path in (data / "new").iterdir()) == ["k.csv", "k_missing.csv"]

    def test_several_splits_without_labels(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (data / "val.csv").write_text(
            "youtube_id,time_start,time_end,split\na,0,10,train\nb,0,10,validate\nc,0,10,test\n"
        )
        touch(data, "my 'videos'/train/a_000000_000010.mp4", "my 'videos'/val/b.mp4")
        assert self.run(data) == 0
        assert (data / "new/k_train.csv").read_text() == f"path\n{data}/my 'videos'/train/a_000000_000010.mp4\n"
        assert len(read_video_list(data / "new/k_val.csv")) == 1
        assert (data / "new/k_test.csv").read_text() == "path\n"
        assert "test: 0 of 1 are present" in capsys.readouterr().out

    def test_classes(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (data / "names.txt").write_text('tai chi\nmassaging person\'s head\nsay "ü", twice\nyoga\n')
        assert self.run(data, "--classes", data / "names.txt") == 0
        assert "2 of 4 classes have no video, such as 'tai chi'" in capsys.readouterr().out
        (data / "names.txt").write_text("tai chi\nmassaging person's head\n")
        assert self.run(data, "--classes", data / "names.txt") == 2
        assert "line 4: expected a label that is one of the 2 classes of" in capsys.readouterr().err

    def test_nothing_there(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (data / "empty").mkdir()
        assert self.run(data, "--videos", data / "empty") == 1
        assert capsys.readouterr().out.splitlines()[-1] == "Listed 0 of 3 videos"
        assert self.run(data, "--videos", data / "none") == 2
        assert "none is no folder: give the folder that holds the videos" in capsys.readouterr().err
        assert self.run(data, "--csv", data / "none.csv") == 2
        assert "none.csv does not exist" in capsys.readouterr().err
        (data / "val.csv").write_text("path,label\n")
        assert self.run(data) == 2
        assert "val.csv line 1: expected a header with youtube_id" in capsys.readouterr().err

    def test_one_file_for_two_clips(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (data / "val.csv").write_text(HEADER + "yoga,y,0,10,val\nyoga,y,20,30,val\n")
        touch(data, "my 'videos'/y.mp4")
        assert self.run(data) == 2
        assert "line 3: " in capsys.readouterr().err
        assert not (data / "new").exists()


class TestUCF101:
    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        lists = tmp_path / "the lists"
        lists.mkdir()
        (lists / "classInd.txt").write_text("1 Punch\n2 Biking\n")
        for split in (1, 2, 3):
            train = [f"Punch/v_Punch_g0{split + 3}_c01.avi 1", f"Biking/v_Biking_g0{split}_c02.avi 2"]
            (lists / f"trainlist0{split}.txt").write_bytes("\r\n".join([*train, ""]).encode())
            (lists / f"testlist0{split}.txt").write_text(f"Punch/v_Punch_g0{split}_c01.avi\n")
        return tmp_path

    def run(self, data: Path) -> int:
        arguments = ("--lists", data / "the lists", "--videos", data / "ü videos", "--out", data / "out")
        return status_of(ucf101, *arguments)

    @pytest.mark.parametrize("folder", ["", "UCF-101/"])
    def test_lists(self, data: Path, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
        videos = [
            "Punch/v_Punch_g04_c01.avi",
            "Biking/v_Biking_g01_c02.avi",
            "Punch/v_Punch_g02_c01.avi",
            "Punch/x.avi",
        ]
        touch(data / "ü videos", *(folder + video for video in videos))
        assert self.run(data) == 0
        train = read_video_list(data / "out/train1.csv", class_names=read_class_names(data / "out/class_names.txt"))
        assert train.paths == tuple(f"{data}/ü videos/{folder}{video}" for video in videos[:2])
        assert (train.class_names, train.labels) == (("Punch", "Biking"), (0, 1))
        assert (data / "out/test1_missing.csv").read_text() == "path,label\nPunch/v_Punch_g01_c01.avi,Punch\n"
        said = capsys.readouterr().out.splitlines()
        assert said[:3] == [
            "split 1: train 2 of 2, test 0 of 1 videos are present",
            "split 2: train 0 of 2, test 1 of 1 videos are present",
            "split 3: train 0 of 2, test 0 of 1 videos are present",
        ]
        assert said[3].startswith("1 videos in ")
        assert said[-1] == f"Wrote the lists of 3 videos and 2 classes to {data / 'out'}"

    def test_flat_and_nothing(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (data / "ü videos").mkdir()
        assert self.run(data) == 1
        touch(data, "ü videos/v_Biking_g03_c02.avi")
        assert self.run(data) == 0
        assert "split 3: train 1 of 2, test 0 of 1" in capsys.readouterr().out

    def test_groups_in_training_and_testing(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (data / "the lists/testlist02.txt").write_text("Punch/v_Punch_g01_c07.avi\nPunch/v_Punch_g05_c09.avi\n")
        assert self.run(data) == 2
        said = capsys.readouterr().err
        assert "testlist02.txt line 2: group v_Punch_g05 is also for training (" in said
        assert "trainlist02.txt line 1)" in said

    def test_wrong_input(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(data) == 2
        assert "ü videos is no folder" in capsys.readouterr().err
        (data / "the lists/testlist03.txt").unlink()
        assert self.run(data) == 2
        assert "testlist03.txt does not exist" in capsys.readouterr().err

    def test_the_official_lists(self, data: Path, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
        touch(data, "ü videos/v_Punch_g20_c02.avi")
        arguments = ("--lists", shared / "data/ucf101", "--videos", data / "ü videos", "--out", data / "out")
        assert status_of(ucf101, *arguments) == 0
        said = capsys.readouterr().out
        for split, counts in enumerate(("train 1 of 9,537, test 0 of 3,783", "train 1 of 9,586, test 0 of 3,734",
                                        "train 0 of 9,624, test 1 of 3,696"), 1):  # fmt: skip
            assert f"split {split}: {counts} videos are present" in said
