"""Real runs through the real command line: train, test, predict, classify, and every kind of wrong input."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import pytest
import torch

from a2video.cli import main, one_sentence
from a2video.errors import InputError
from a2video.inference.classifier import VideoClassifier

Writer = Callable[[Path], Path]


def fails(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    """Runs a command that must end with status 2 and one sentence, which it returns."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main([str(arg) for arg in args])
    assert exit_info.value.code == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("a2video: error: ")
    return message


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def results_of(config: Path, checkpoint: Path, *options: str) -> dict:
    main(["test", "--config", str(config), "--ckpt_path", str(checkpoint), "--overwrite", "true", *options])
    return json.loads((config.parent / "out/results.json").read_text())


def test_fit_leaves_loadable_checkpoints_and_logs(trained: Path) -> None:
    checkpoint = torch.load(trained / "best.ckpt", weights_only=True)
    assert checkpoint["a2video"]["class_names"] == ["left", "right"]
    assert checkpoint["a2video"]["preprocessing"]["crop_size"] == 24
    assert checkpoint["a2video"]["network"]["builder"] == "a2net_tiny"
    assert (trained / "last.ckpt").is_file()
    header, *rows = csv.reader((trained / "logs/version_0/metrics.csv").read_text().splitlines())
    assert {"train/top1", "train/top5", "val/loss", "val/top1", "val/top5"} <= set(header)
    logged = {name: [row[header.index(name)] for row in rows] for name in ("step", "lr", "train/clips_per_second")}
    short = [step for step, rate in zip(logged["step"], logged["lr"], strict=True) if rate]
    assert short == ["1", "3"]  # the last step of each epoch, of which Lightning would log each 50th
    assert any(logged["train/clips_per_second"])
    assert (trained / "logs/version_0/config.yaml").is_file()


def test_test_writes_everything(
    trained: Path, write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = results_of(write_config(tmp_path), trained / "best.ckpt")
    assert results["num_videos"] == results["num_scored"] == 5
    assert results["coverage"] == 1
    assert results["chance"] == 0.5
    assert results["majority_baseline"] == 0.6
    assert results["protocol"] == (
        "3 clips x 3 crops of 4 frames, stride 2, short side 32, crop 24, mean of probabilities"
    )
    assert results["clip_top5"] == results["video_top5"] == 1
    assert results["clip_top1"] * 45 == pytest.approx(round(results["clip_top1"] * 45), abs=1e-3)
    assert results["checkpoint"].endswith("best.ckpt")
    assert results["versions"]["torch"] == torch.__version__
    out = tmp_path / "out"
    rows = table(out / "test_predictions.csv")
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert len(rows) == 5
    assert results["video_top1"] == pytest.approx(right / 5)
    for picture in ("confusion_matrix.png", "test_predictions.png"):
        pixels = matplotlib.image.imread(out / picture)
        assert pixels.std() > 0.05  # not an empty canvas
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith("Wrote ")
    assert printed[-2].endswith(results["protocol"])
    assert "5/5" in printed[-3]


def test_workers_change_no_result(trained: Path, write_config: Writer, tmp_path: Path) -> None:
    """Nor do they change training: test_golden_losses.py."""
    config = write_config(tmp_path)
    alone = results_of(config, trained / "best.ckpt")
    for num_workers in (1, 2):
        assert results_of(config, trained / "best.ckpt", f"--data.num_workers={num_workers}") == alone


def test_classify_equals_test(
    trained: Path, write_config: Writer, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    results_of(config, trained / "best.ckpt")
    rows = table(tmp_path / "out/test_predictions.csv")
    broken = tmp_path / "broken file.mp4"
    broken.write_text("text")
    videos = [rows[0]["path"], str(broken), rows[1]["path"]]
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main(["classify", str(trained / "best.ckpt"), *videos, "--json"])
    assert exit_info.value.code == 1
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["path"] for line in lines] == videos
    assert "broken file.mp4" in lines[1]["error"]
    assert "broken file.mp4" in printed.err
    assert "Traceback" not in printed.err
    for line, row in ((lines[0], rows[0]), (lines[2], rows[1])):
        assert line["predictions"][0]["label"] == row["predicted"]
        assert line["predictions"][0]["probability"] == pytest.approx(float(row["probability"]), abs=1e-6)
        assert sum(p["probability"] for p in line["predictions"]) == pytest.approx(1)


def test_classify_prints_text(trained: Path, small_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = str(small_data / "test/left/0 ü.mp4")
    with pytest.raises(SystemExit) as exit_info:
        main(["classify", str(trained / "best.ckpt"), video, "--top", "1"])
    assert exit_info.value.code == 0
    name, best = capsys.readouterr().out.splitlines()
    assert name == video
    assert best.split()[1] in ("left", "right")


def test_validate_and_predict(
    trained: Path, write_config: Writer, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    checkpoint = str(trained / "best.ckpt")
    main(["validate", "--config", str(config), "--ckpt_path", checkpoint])
    assert "Validation, one centre view of each video: top-1" in capsys.readouterr().out
    unlabelled = str(small_data / "test/left")
    main(["predict", "--config", str(config), "--ckpt_path", checkpoint, "--data.predict_list", unlabelled])
    rows = table(tmp_path / "out/predictions.csv")
    assert len(rows) == 3
    assert {row["predicted"] for row in rows} <= {"left", "right"}
    assert "Predicted 3 of 3 videos" in capsys.readouterr().out


def test_folders_of_class_folders(trained: Path, write_config: Writer, small_data: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    from_lists = results_of(config, trained / "best.ckpt")
    folders = [f"--data.{split}_list={small_data / split}" for split in ("train", "val", "test")]
    from_folders = results_of(config, trained / "best.ckpt", *folders)
    different = {name for name in from_lists if from_lists[name] != from_folders[name]}
    assert different == {"list", "list_sha256"}  # the order of the videos


def test_broken_video_in_testing_is_counted_and_named(
    trained: Path, write_config: Writer, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_text("text")
    rows = (small_data / "test.csv").read_text(encoding="utf-8").splitlines()
    absolute = [f"{small_data}/{row}" for row in rows[1:]]
    (tmp_path / "list.csv").write_text("\n".join([rows[0], "broken.mp4,left", *absolute]), encoding="utf-8")
    config = write_config(tmp_path)
    results = results_of(config, trained / "best.ckpt", f"--data.test_list={tmp_path / 'list.csv'}")
    assert (results["num_videos"], results["num_scored"]) == (6, 5)
    assert results["coverage"] == pytest.approx(5 / 6)
    assert results["failed"][0]["path"].endswith("broken.mp4")
    assert "not scored: " in capsys.readouterr().out


def test_a_single_video(trained: Path, write_config: Writer, small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_text("text")
    (tmp_path / "list.csv").write_text(f"path,label\nbroken.mp4,left\n{small_data}/test/left/0 ü.mp4,left\n", "utf-8")
    options = [f"--data.test_list={tmp_path / 'list.csv'}"]
    results = results_of(write_config(tmp_path), trained / "best.ckpt", *options)
    assert (results["num_videos"], results["num_scored"]) == (2, 1)
    assert results["video_top1"] in (0, 1)


def test_class_names_of_the_checkpoint_serve_where_the_training_list_is_gone(
    trained: Path, write_config: Writer, small_data: Path, tmp_path: Path
) -> None:
    options = ["--data.train_list=gone.csv", "--data.val_list=null"]
    assert results_of(write_config(tmp_path), trained / "best.ckpt", *options)["num_scored"] == 5
    command = [
        "predict",
        "--config",
        str(tmp_path / "config file.yaml"),
        f"--ckpt_path={trained / 'best.ckpt'}",
        *options,
    ]
    main([*command, f"--data.predict_list={small_data / 'test/left'}", "--data.test_list=null"])
    assert {row["predicted"] for row in table(tmp_path / "out/predictions.csv")} <= {"left", "right"}


def test_class_names_with_dollars_are_drawn(write_config: Writer, small_data: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("left\na_$x_{$\n")
    (tmp_path / "list.csv").write_text(f"path,label\n{small_data}/test/left/0 ü.mp4,a_$x_{{$\n", "utf-8")
    config = write_config(tmp_path)
    lists = [f"--data.{name}_list={tmp_path / 'list.csv'}" for name in ("train", "test")]
    options = [
        *lists,
        "--data.val_list=null",
        "--model.network.places=[]",
        f"--data.class_names={tmp_path / 'names.txt'}",
        "--data.batch_size=1",
    ]
    main(["fit", "--config", str(config), *options, "--trainer.max_epochs=1"])
    results_of(config, tmp_path / "out/last.ckpt", *options)
    assert (tmp_path / "out/confusion_matrix.png").is_file()


def test_training_on_two_processes(write_config: Writer, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    devices = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "2"]
    command = [sys.executable, "-m", "a2video", "fit", "--config", str(config), *devices]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    assert torch.load(tmp_path / "out/last.ckpt", weights_only=True)["global_step"] == 4  # 8 / (2 * 2) * 2 epochs


def test_no_videos_at_all_can_be_scored(trained: Path, write_config: Writer, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_text("text")
    (tmp_path / "list.csv").write_text("path,label\nbroken.mp4,left\n")
    results = results_of(write_config(tmp_path), trained / "best.ckpt", f"--data.test_list={tmp_path / 'list.csv'}")
    assert results["num_scored"] == 0
    assert results["video_top1"] is None


def test_fit_protects_a_finished_run_and_resumes(
    write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    one = ["fit", "--config", str(config), "--trainer.max_epochs", "1"]
    main(one)
    last = tmp_path / "out/last.ckpt"
    assert "last.ckpt exists: choose another --trainer.default_root_dir" in fails(capsys, *one)
    steps = [torch.load(last, weights_only=True)["global_step"]]
    for options in (["fit", "--config", str(config), "--ckpt_path", str(last)], [*one, "--overwrite", "true"]):
        main(options)
        steps.append(torch.load(last, weights_only=True)["global_step"])
    assert steps == [2, 4, 2]


class TestWrongInput:
    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ("path,label\nnowhere.mp4,left\n", "list.csv line 2: video"),
            ("path,label\n", "list.csv is empty"),
            (
                "path,label\n{video},left\n{other},up\n",
                "list.csv line 3: label 'up' is none of the 2 classes of ",
            ),
            ("path,label\n{video},7\n", "list.csv line 2: found the number 7, where the 2 classes of "),
        ],
    )
    def test_list(
        self, write_config: Writer, trained: Path, small_data: Path, tmp_path: Path, rows: str, message: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        text = rows.format(video=small_data / "test/left/0 ü.mp4", other=small_data / "test/left/2 ü.mp4")
        (tmp_path / "list.csv").write_text(text, encoding="utf-8")
        options = [f"--data.test_list={tmp_path / 'list.csv'}", f"--ckpt_path={trained / 'best.ckpt'}"]
        assert message in fails(capsys, "test", "--config", write_config(tmp_path), *options)

    def test_number_of_classes(self, write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        message = fails(capsys, "fit", "--config", write_config(tmp_path), "--model.network.init_args.num_classes=3")
        assert "gives 3 logits but the data has 2 classes: set model.network.init_args.num_classes to 2" in message
        assert "name all classes by data.class_names" in message
        message = fails(capsys, "fit", "--config", write_config(tmp_path), "--model.network.init_args.num_classes=1")
        assert message.endswith("set model.network.init_args.num_classes to 2, or correct the labels")

    def test_values_that_a_class_refuses(
        self, write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fit = ("fit", "--config", write_config(tmp_path))
        assert "no residual block is named 'conv9.9'" in fails(capsys, *fit, '--model.network.places=["conv9.9"]')
        assert "num_crops must be 1 or 3, got 2" in fails(capsys, *fit, "--data.preprocessing.num_crops=2")
        assert "accelerator" in fails(capsys, *fit, "--trainer.accelerator=abacus")
        assert "expected model.optimizer.lr >= 0" in fails(capsys, *fit, "--model.optimizer.lr=-1")
        assert "ratio must be at least 1, got 0" in fails(capsys, *fit, "--model.network.ratio=0")
        assert "has no parameter to train" in fails(capsys, *fit, "--model.network=torch.nn.Identity")
        assert "seed_everything must be at least 0" in fails(capsys, *fit, "--seed_everything=-1")
        assert "default_root_dir is null" in fails(capsys, *fit, "--trainer.default_root_dir=null")
        message = fails(capsys, *fit, "--data.preprocessing.num_frames=1")
        assert "does not take clips of data.preprocessing: input must be at least (2, 8, 8)" in message
        message = fails(capsys, *fit, "--model.optimizer.lr=1e30", "--model.schedule=null", "--trainer.max_epochs=9")
        assert "the training loss is" in message
        assert "lower model.optimizer.lr" in message
        message = fails(capsys, *fit, f"--model.pretrained={tmp_path / 'none.pth'}")
        assert "model.pretrained: " in message
        assert "none.pth does not exist" in message

    def test_misspelt_keys(self, write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config = write_config(tmp_path)
        text = config.read_text()
        for right, wrong in (("batch_size", "batchsize"), ("crop_size", "cropsize"), ("max_epochs", "max_epoch")):
            config.write_text(text.replace(right, wrong))
            assert wrong in fails(capsys, "fit", "--config", config)
        config.write_text(text)
        assert "--data.batchsize" in fails(capsys, "fit", "--config", config, "--data.batchsize=2")
        assert "no_such_file.yaml" in fails(capsys, "fit", "--config", "no_such_file.yaml")

    def test_misspelt_words_and_import_paths(
        self, write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config, begins = write_config(tmp_path), "a2video: error: "
        nowhere = "an option's import path leads nowhere: "
        for option, said in (
            ("model.inflate=centre", "model.inflate: expected center, mean, found 'centre': did you mean center?"),
            (
                "trainer.precision=bf17",
                "bf16-true, bf16-mixed, 32-true, 64-true, 64, 32, 16, bf16, found 'bf17': did you",
            ),
            (
                "model.network=a2video.models.a2net_tyni",
                "model.network: module 'a2video.models' has no attribute 'a2net_tyni': did you mean a2net_tiny?",
            ),
            ("model.schedule=a2video.schedules.Cosin", "model.schedule: module 'a2video.schedules' has no attribute"),
            (
                "data.reader=a2video.data.pyav_reader.PyAVReadr",
                f"{nowhere}module 'a2video.data.pyav_reader' has no attribute 'PyAVReadr': did you mean PyAVReader?",
            ),
            ("data.reader=a2video.data.pyav_readr.PyAVReader", f"{nowhere}module 'a2video.data' has no attribute"),
            ("data.reader=nope.Reader", f"{nowhere}No module named 'nope'"),
            ("trainer.max_epochs=x", "Parser key \"trainer.max_epochs\": Expected a <class 'int'>"),
        ):
            message = fails(capsys, "fit", "--config", config, f"--{option}")
            assert message.startswith(begins if option.startswith("trainer.prec") else begins + said), message
            assert said in message
        with pytest.raises(SystemExit) as exit_info:
            main(["doctor", "--config", str(config), "--data.reader=nope.Reader"])
        assert exit_info.value.code == 1
        assert f"the configuration is refused: {nowhere}No module named 'nope'" in capsys.readouterr().out

    def test_checkpoint(
        self, write_config: Writer, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = write_config(tmp_path)
        video = small_data / "test/left/0 ü.mp4"
        (tmp_path / "text.ckpt").write_text("not a checkpoint")
        torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
        torch.save({"a2video": print}, tmp_path / "code.ckpt")
        for name, message in (
            ("none.ckpt", "does not exist"),
            ("text.ckpt", "holds no plain data and tensors of torch.save: give a .ckpt file that `a2video fit` wrote"),
            ("code.ckpt", "holds no plain data"),
            ("", "is not a file"),
            ("foreign.ckpt", "was not written by a2video"),
        ):
            assert message in fails(capsys, "classify", tmp_path / name, video)
            assert message in fails(capsys, "test", "--config", config, f"--ckpt_path={tmp_path / name}")
        assert "test needs trained weights: give --ckpt_path" in fails(capsys, "test", "--config", config)

    def test_checkpoint_of_another_preprocessing_or_other_classes(
        self, write_config: Writer, trained: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = ["test", "--config", write_config(tmp_path), f"--ckpt_path={trained / 'best.ckpt'}"]
        message = fails(capsys, *options, "--data.preprocessing.frame_stride=3")
        assert "trained with data.preprocessing.frame_stride = 2, but here it is 3" in message
        (tmp_path / "names.txt").write_text("right\nleft\n")
        message = fails(capsys, *options, f"--data.class_names={tmp_path / 'names.txt'}")
        assert "the data's class names = ['left', 'right'], but here it is ['right', 'left']" in message

    def test_numbers_where_the_classes_have_names(
        self, write_config: Writer, trained: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Which number is which name is for the user to say: in alphabetical order it may well be the other way."""
        config, checkpoint = write_config(tmp_path), trained / "best.ckpt"
        for split in ("train", "val", "test"):
            text = (small_data / f"{split}.csv").read_text(encoding="utf-8")
            numbers = text.replace(",left", ",1").replace(",right", ",0")
            (tmp_path / f"{split}.csv").write_text(numbers, encoding="utf-8")
        (tmp_path / "names.txt").write_text("right\nleft\n")
        root = f"--data.root={small_data}"
        fit, test = ["fit", "--config", config, root], ["test", "--config", config, root, f"--ckpt_path={checkpoint}"]
        said = "csv line 2: found the number 1, where the 2 classes of {} have names (left, right): give names"
        for split in ("val", "test"):
            mixed = f"--data.{split}_list={tmp_path}/{split}.csv"
            message = fails(capsys, *(fit if split == "val" else test), mixed)
            assert said.format(small_data / "train.csv" if split == "val" else checkpoint) in message
            with pytest.raises(SystemExit) as exit_info:
                main(["doctor", "--config", str(config), root, mixed])
            assert exit_info.value.code == 1
            assert said.format(small_data / "train.csv") in capsys.readouterr().out
        message = fails(capsys, *fit, f"--data.train_list={tmp_path}/train.csv")
        assert f"label 'left' is none of the 2 classes of {tmp_path}/train.csv (0, 1)" in message
        lists = [f"--data.{split}_list={tmp_path}/{split}.csv" for split in ("train", "val", "test")]
        main(list(map(str, [*fit, *lists, f"--data.class_names={tmp_path}/names.txt", "--trainer.max_epochs=1"])))
        assert torch.load(tmp_path / "out/last.ckpt", weights_only=True)["a2video"]["class_names"] == ["right", "left"]

    def test_unlabelled_lists(
        self, write_config: Writer, trained: Path, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config, unlabelled = write_config(tmp_path), small_data / "test/left"
        message = fails(capsys, "fit", "--config", config, f"--data.val_list={unlabelled}")
        assert "has no labels, which data.val_list needs" in message
        options = [f"--data.test_list={unlabelled}", f"--ckpt_path={trained / 'best.ckpt'}"]
        assert "has no labels, which data.test_list needs" in fails(capsys, "test", "--config", config, *options)

    def test_batch_larger_than_the_list(
        self, write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        message = fails(capsys, "fit", "--config", write_config(tmp_path), "--data.batch_size=9")
        assert "data.batch_size (9) exceeds the 8 videos of" in message

    def test_classify_options(self, trained: Path, small_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        command = ("classify", trained / "best.ckpt", small_data / "test/left/0 ü.mp4")
        assert "device 'abacus' cannot be used" in fails(capsys, *command, "--device", "abacus")
        for top in ("0", "-1", "x"):
            with pytest.raises(SystemExit) as exit_info:
                main([str(arg) for arg in (*command, f"--top={top}")])
            assert exit_info.value.code == 2
            assert "expected a number from 1 up" in capsys.readouterr().err

    def test_messages_that_begin_like_a_traceback(self, tmp_path: Path) -> None:
        assert one_sentence(InputError("a2video.csv line 1: expected x")) == "a2video.csv line 1: expected x"
        wrapped = "Caught VideoError\nTraceback ...\na2video.data.readers.VideoError: x.mp4: broken\n"
        assert one_sentence(InputError(wrapped)) == "x.mp4: broken"

    def test_unknown_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exit_info:
            main(["trian"])
        assert exit_info.value.code == 2
        assert "trian" in capsys.readouterr().err

    def test_results_to_compare(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert "does not exist: give the results.json" in fails(capsys, "compare", tmp_path)
        (tmp_path / "results.json").write_text("[]")
        assert "is not a results.json" in fails(capsys, "compare", tmp_path)


def test_every_shared_video_is_classified_or_refused_with_one_sentence(
    trained: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = sorted((shared / "videos").iterdir())
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main(["classify", str(trained / "best.ckpt"), "--json", *map(str, videos)])
    assert exit_info.value.code == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["path"]) for line in lines] == videos
    assert {Path(line["path"]).name for line in lines if "error" in line} == {"corrupted.mp4"}


def test_results_of_another_test_are_kept(
    trained: Path, write_config: Writer, small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    test = ["test", "--config", str(config), f"--ckpt_path={trained / 'best.ckpt'}"]
    main(test)
    main(test)  # the same again is no loss, however its path is written
    main([*test, f"--data.test_list={small_data}/./test.csv"])
    other = [*test, f"--data.test_list={small_data / 'val.csv'}"]
    assert "test.csv with another folder: choose another --trainer.default_root_dir, or replace it" in fails(
        capsys, *other
    )
    assert json.loads((tmp_path / "out/results.json").read_text())["num_videos"] == 5
    main([*other, "--overwrite", "true"])
    assert json.loads((tmp_path / "out/results.json").read_text())["num_videos"] == 4


def test_a_network_of_the_users_own(
    write_config: Writer, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "my_network.py").write_text(
        "from torch import nn\n\n\nclass MyNetwork(nn.Sequential):\n    def __init__(self, num_classes: int) -> None:\n"
        "        super().__init__(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path)
    network = ["--model.network=my_network.MyNetwork", "--model.network.num_classes=2"]
    main(["fit", "--config", str(config), "--trainer.max_epochs=1", *network])
    checkpoint, video = tmp_path / "out/last.ckpt", small_data / "test/left/0 ü.mp4"
    message = fails(capsys, "classify", checkpoint, video)
    assert "VideoClassifier.load(checkpoint, network=yours)" in message
    mine = sys.modules["my_network"].MyNetwork(2)
    assert len(VideoClassifier.load(checkpoint, "cpu", mine)(video).ranked) == 2
    wrong = ["--model.network=my_network.MyNetwork", "--model.network.num_classes=3", "--overwrite=true"]
    assert "gives 3 logits but the data has 2 classes" in fails(capsys, "fit", "--config", config, *wrong)


def test_fine_tuning_from_pretrained_weights(
    trained: Path, write_config: Writer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path)
    options = ["--model.optimizer.lr=0", "--trainer.max_epochs=1", f"--model.pretrained={trained / 'best.ckpt'}"]
    main(["fit", "--config", str(config), *options])
    assert "weights loaded, 0 inflated" in capsys.readouterr().out
    before, after = (
        torch.load(path, weights_only=True)["state_dict"]
        for path in (trained / "best.ckpt", tmp_path / "out/last.ckpt")
    )
    assert all(torch.equal(before[name], after[name]) for name in before if name.endswith(("weight", "bias")))


def test_list_of_models(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from a2video.models import catalog

    few = [entry for entry in catalog.CATALOG if entry.name in ("resnet26", "a2net_resnet50", "a2net_tiny")]
    monkeypatch.setattr(catalog, "CATALOG", few)
    for options in ([], ["--json"]):
        with pytest.raises(SystemExit) as exit_info:
            main(["models", *options])
        assert exit_info.value.code == 0
    printed = capsys.readouterr().out
    table, rows = printed[: printed.index("[")], json.loads(printed[printed.index("[") :])
    assert "7.04 M (paper 7.04, +0.1 %)" in table
    assert "40.80 G (paper 40.8, -0.0 %)" in table
    assert rows[1]["builder"] == "a2net_resnet50"
    assert rows[1]["multiply_adds_giga"] < 40.2 < rows[1]["textbook_multiply_adds_giga"]
    assert abs(rows[1]["parameters_difference_percent"]) < 0.5


def test_classifier_in_python(trained: Path, small_data: Path) -> None:
    classifier = VideoClassifier.load(trained / "best.ckpt", device="cpu")
    prediction = classifier(small_data / "test/left/0 ü.mp4")
    assert {name for name, _ in prediction.ranked} == {"left", "right"}
    probabilities = [probability for _, probability in prediction.ranked]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)
