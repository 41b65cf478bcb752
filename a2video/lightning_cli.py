"""fit, validate, test and predict: one YAML file and the recognizer, the datamodule and Lightning's trainer."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities import rank_zero_info

from a2video.atomic import make_folder
from a2video.checkpoint_files import AtomicCheckpointIO, newest_whole, run_files
from a2video.checkpoints import Checkpoints
from a2video.comparison import comparison_table
from a2video.curves import leave_learning_curves
from a2video.datamodule import VideoDataModule
from a2video.errors import InputError, Interrupted
from a2video.inference.weights import CHECKPOINT_KEY, read_checkpoint
from a2video.logs import ShortEpochs, loggers
from a2video.option_errors import explain
from a2video.position import KEY
from a2video.printable import shown
from a2video.processes import check_processes, end_with_first
from a2video.recognizer import Recognizer
from a2video.report import write_predictions, write_test
from a2video.score_parts import ScoreParts, about_test
from a2video.scores import About, Scores
from a2video.watch_ranks import lost_connection

CLI = TypeVar("CLI", bound="ExperimentCLI")

# Said by Lightning about itself, or where our defaults mean it.
HARMLESS_WARNINGS = [
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"Checkpoint directory .* exists and is not empty",
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",
    r"predict returned None",
    r"Found \d+ module\(s\) in eval mode at the start of training",  # those of model.freeze
    r"The number of training batches .* is smaller than the logging interval",
    r"LightningCLI's args parameter is intended to run from within Python",
]

UNWANTED = ("Tip: For seamless cloud", "Detected KeyboardInterrupt")  # of what Lightning logs


class ExperimentParser(LightningArgumentParser):
    """Reports a wrong option or key as one InputError instead of a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        """Called by jsonargparse with what is wrong."""
        raise InputError(explain(message)) from ex


class ExperimentCLI(LightningCLI):
    """LightningCLI with our recognizer and data, and every output in trainer.default_root_dir."""

    model: Recognizer
    datamodule: VideoDataModule
    trainer: Trainer

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """One seed for everything."""
        parser.add_argument(
            "--overwrite",
            type=bool,
            default=False,
            help="fit, test: replace the run or the results of another test in the output folder",
        )
        parser.add_argument(
            "--num_threads", type=int, default=0, help="torch's threads on the CPU, beside the loader's workers; 0: all"
        )
        parser.add_class_arguments(Checkpoints, "checkpoints")
        parser.link_arguments("seed_everything", "data.seed")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Refuses a file that is no checkpoint before anything else reads it."""
        try:
            super().parse_arguments(parser, args)
        except (ImportError, AttributeError) as error:  # what jsonargparse lets through of a class's import path
            raise InputError(f"an option's import path leads nowhere: {explain(str(error))}") from error
        config = self.config[self.config.subcommand]
        self.checkpoint_names: tuple[str, ...] = ()
        self.resumed_at: int | None = None  # number of logged steps
        if config.trainer.default_root_dir is None:
            raise InputError("trainer.default_root_dir is null: give the folder for everything that is written")
        if not isinstance(config.seed_everything, bool) and config.seed_everything < 0:
            raise InputError(f"seed_everything must be at least 0, got {config.seed_everything}")
        self._resolve_checkpoint(config)
        if config.ckpt_path:
            content = read_checkpoint(config.ckpt_path) if self.config.subcommand != "fit" else None
            if content is None:
                path, content = newest_whole(config.ckpt_path)
                config.ckpt_path = str(path)
                self.resumed_at = content.get(KEY, {}).get("num_logged_steps", content["global_step"])
            self.checkpoint_names = tuple(content[CHECKPOINT_KEY].get("class_names", ()))
            config.weights_only = True
        elif self.config.subcommand != "fit":
            raise InputError(f"{self.config.subcommand} needs trained weights: give --ckpt_path")

    def _parse_ckpt_path(self) -> None:
        """Lightning would let the checkpoint's hyper_parameters replace options here, import paths of classes too."""

    def _resolve_checkpoint(self, config: Any) -> None:
        """The file that the words `last` and `best` mean, and that a job goes on from which SLURM runs again."""
        folder = Path(config.trainer.default_root_dir)
        is_requeued = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0
        if self.config.subcommand == "fit" and not config.ckpt_path and is_requeued:
            config.ckpt_path = "last"
        if config.ckpt_path in ("last", "best"):
            word, config.ckpt_path = config.ckpt_path, str(folder / f"{config.ckpt_path}.ckpt")
            if self.config.subcommand == "fit" and word == "last" and not run_files(folder):
                rank_zero_info(f"{folder} has no checkpoint to go on from: starting at the beginning")
                config.ckpt_path = None

    def before_instantiate_classes(self) -> None:
        """Fits the options to the subcommand, and protects a finished run."""
        config = self.config[self.subcommand]
        if config.num_threads > 0:
            torch.set_num_threads(config.num_threads)
            os.environ["OMP_NUM_THREADS"] = str(config.num_threads)  # Lightning would choose anew for several ranks
        if config.data.val_list is None:
            config.trainer.limit_val_batches = 0
        if self.subcommand == "fit":
            files = run_files(Path(config.trainer.default_root_dir))
            if files and not config.ckpt_path and not config.overwrite:
                raise InputError(
                    f"{max(files)} exists: choose another --trainer.default_root_dir, go on with that run by "
                    "--ckpt_path last, or replace it by --overwrite=true"
                )
        else:
            self.save_config_callback = None
        if self.subcommand in ("validate", "test"):
            config.verbose = False  # we print our own table

    def instantiate_classes(self) -> None:
        """A value that a class refuses is a mistake in the configuration."""
        try:
            super().instantiate_classes()
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise InputError(explain(str(error))) from error
        config = self.config[self.subcommand]
        if self.checkpoint_names and self.subcommand != "fit" and config.data.class_names is None:
            self.datamodule.class_names, self.datamodule.classes_of = self.checkpoint_names, config.ckpt_path

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """last.ckpt, best.ckpt and logs/ go to the output folder; the user's YAML may configure another best."""
        config = self.config_init[self.subcommand]["trainer"]
        callbacks = list(config.get("callbacks") or [])
        has_own = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
        kwargs["callbacks"] = callbacks
        if self.subcommand == "fit" and config.get("log_every_n_steps") is None:
            callbacks.append(ShortEpochs())
        if self.subcommand == "fit" and config.get("enable_checkpointing") is not False:
            last = self.config_init[self.subcommand]["checkpoints"]
            callbacks.append(last)
            if not has_own:
                monitor, folder = "val/top1" if self.datamodule.val_list else None, config["default_root_dir"]
                callbacks.append(ModelCheckpoint(folder, "best", monitor, mode="max", enable_version_counter=False))
            plugins = config.get("plugins") or []
            plugins = list(plugins) if isinstance(plugins, (list, tuple)) else [plugins]
            if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
                kwargs["plugins"] = [*plugins, AtomicCheckpointIO(last.num_last)]
        elif not has_own:
            kwargs["enable_checkpointing"] = False
        if self.subcommand == "test":
            options = self.config_init["test"]
            folder = Path(config["default_root_dir"])
            self.parts = ScoreParts(folder, options["ckpt_path"], options["overwrite"])
            callbacks.append(self.parts)
        if config.get("logger") is None:
            is_fit = self.subcommand == "fit"
            kwargs["logger"] = loggers(Path(config["default_root_dir"]), self.resumed_at) if is_fit else False
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except RuntimeError as error:  # what Lightning says of a SLURM job that is not as it should be
            raise InputError(" ".join(str(error).split())) from error
        check_processes(trainer, bool(config.get("sync_batchnorm")))
        return trainer

    def before_fit(self) -> None:
        """Says what is trained, in place of Lightning's table, whose operations would all be 0."""
        if self.trainer.is_global_zero:
            network = self.model.network
            total = sum(weights.numel() for weights in network.parameters())
            frozen = sum(weights.numel() for weights in network.parameters() if not weights.requires_grad)
            print(f"{type(network).__name__}: {total:,} parameters" + f", {frozen:,} of them frozen" * (frozen > 0))

    def after_fit(self) -> None:
        """Says what came out and where it is."""
        log_dir = self.trainer.log_dir  # asks all ranks
        if not self.trainer.is_global_zero:
            return
        steps, epochs = self.trainer.global_step, self.trainer.current_epoch
        print(f"Trained {steps} step{'s' * (steps != 1)} in {epochs} epoch{'s' * (epochs != 1)}.")
        best = None
        for callback in sorted(self.trainer.checkpoint_callbacks, key=lambda each: isinstance(each, ModelCheckpoint)):
            path = Path(getattr(callback, "best_model_path", "") or getattr(callback, "path", ""))
            if path.is_file():
                best = path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
                print(f"Checkpoint: {path}{_score(callback)}")
        if best and log_dir is not None and self.datamodule.test_list is not None:
            print(f"Test it: a2video test --config '{log_dir}/config.yaml' --ckpt_path '{best}'")

    def _run_subcommand(self, subcommand: str) -> None:
        """A training leaves its learning curves behind, also one that was stopped."""
        if subcommand != "validate":  # which writes nothing
            make_folder(Path(self.trainer.default_root_dir), "trainer.default_root_dir")
        try:
            super()._run_subcommand(subcommand)
        except SystemExit as end:  # Lightning's, after Ctrl-C
            if not isinstance(end.__context__, KeyboardInterrupt):
                raise
            signal.signal(signal.SIGINT, signal.default_int_handler)
            kept = ": what is scored is kept, the same command goes on" if subcommand == "test" else ""
            raise Interrupted(f"interrupted{kept}" if self.trainer.is_global_zero else "", 130) from None
        except RuntimeError as error:
            if self.trainer.world_size == 1 or (sentence := lost_connection(error)) is None:
                raise
            raise Interrupted(f"rank {self.trainer.global_rank}: {sentence}", 1) from error
        finally:
            leave_learning_curves(self.trainer)

    def after_validate(self) -> None:
        """Prints the accuracies, in which an unread video counts as wrong."""
        if self.trainer.is_global_zero:
            top1, top5 = (self.model.val_scores[f"val/top{k}"] for k in (1, 5))
            print(f"Validation, one centre view of each video: top-1 {top1:.1%}, top-5 {top5:.1%}")
            _report_unscored([message for _, message in self.model.errors], len(self.datamodule.videos["val"]))

    def after_test(self) -> None:
        """Writes scores.parquet, results.json, tables and pictures, and prints the numbers."""
        if not self.trainer.is_global_zero:
            return
        scores = self._scores("test", self.parts.about)
        written = write_test(scores, Path(self.trainer.default_root_dir))
        self.parts.remove()
        print(comparison_table(written[:1]))
        _report_unscored(list(scores.unscored.values()), len(scores.paths))
        print("Wrote " + ", ".join(map(str, written)))

    def after_predict(self) -> None:
        """Writes predictions.csv."""
        if not self.trainer.is_global_zero:
            return
        about = about_test(self.trainer, self.datamodule, "predict", self.config["predict"].ckpt_path)
        scores = self._scores("predict", about)
        path = write_predictions(scores, Path(self.trainer.default_root_dir) / "predictions.csv")
        _report_unscored(list(scores.unscored.values()), len(scores.paths))
        print(f"Predicted {len(scores.scored)} of {len(scores.paths)} videos: {path}")
        print(about.protocol)

    def _scores(self, name: str, about: About) -> Scores:
        videos, failed = self.datamodule.videos[name], dict(self.model.errors)
        return Scores.of(about, videos.class_names, videos.paths, videos.labels, self.model.rows, failed)


def _report_unscored(messages: Sequence[str], num_listed: int) -> None:
    for message in messages:
        print(f"not scored: {shown(message)}")
    if messages:
        share = 1 - len(messages) / num_listed
        print(f"Coverage {share:.1%}: {len(messages)} of {num_listed} videos not scored")


def _score(callback: Checkpoint) -> str:
    """What a file was chosen for; accuracies in percent."""
    if not isinstance(callback, ModelCheckpoint) or not callback.monitor or callback.best_model_score is None:
        return ""
    score, is_share = float(callback.best_model_score), callback.monitor.endswith(("top1", "top5"))
    return f" ({callback.monitor} {score:{'.1%' if is_share else '.4g'}})"


class UnrunCLI(ExperimentCLI):
    """Makes everything and runs nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def experiment(args: Sequence[str]) -> tuple[Recognizer, VideoDataModule, Trainer]:
    """What `a2video fit` with these options would train with, ready made; nothing is set up, read or written.

    Args:
        args: the options of fit, without the word itself.

    Raises:
        InputError: an option or a key of the YAML file is wrong.
    """
    cli = command_line(UnrunCLI, ["fit", *args, "--overwrite=true"])  # nothing is there to be overwritten
    return cli.model, cli.datamodule, cli.trainer


def run(args: Sequence[str] | None = None) -> None:
    """Runs `fit`, `validate`, `test` or `predict`.

    Args:
        args: the command line, subcommand first; sys.argv when None.

    Raises:
        InputError: an option, a key of the YAML file, a list or a checkpoint is wrong.
    """
    command_line(ExperimentCLI, args)


def command_line(kind: type[CLI], args: Sequence[str] | None) -> CLI:
    """Carries out the arguments as `kind` does; see run."""
    end_with_first()
    os.environ.setdefault("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")  # whatever loads a checkpoint runs nothing in it
    sys.path.append(str(Path.cwd()))  # a network of the user's own may lie here
    for harmless in HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", harmless)
    advertisements = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    advertisements.addFilter(lambda record: not any(text in record.getMessage() for text in UNWANTED))
    return kind(
        Recognizer,
        VideoDataModule,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={
            "default_root_dir": "runs/default",
            "use_distributed_sampler": False,
            "enable_model_summary": False,
        },
        seed_everything_default=0,
        parser_class=ExperimentParser,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        args=None if args is None else list(args),
    )
