"""Lists, sampler, reader and transform put together as Lightning's loaders for training, testing and prediction."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info

from a2video.augment import Augment
from a2video.data.dataset import Batch, EpochSampler, VideoDataset
from a2video.data.limits import GIB, share_of_memory
from a2video.data.metadata import MetadataCache
from a2video.data.protocols import OfPreprocessing, OneCentreClip, Protocol
from a2video.data.pyav_reader import PyAVReader
from a2video.data.readers import VideoReader, open_video
from a2video.data.samplers import ClipSampler, RandomClips
from a2video.data.transforms import Preprocessing, RandomArea, RandomCrop, Transform
from a2video.data.video_list import NO_LABEL, VideoList, read_class_names, read_video_list
from a2video.data.watched_loader import WatchedLoader
from a2video.errors import InputError
from a2video.printable import shown

NUM_LOOKED_UP = 20  # videos of a list that are looked up to tell whether a metadata cache belongs to it


class VideoDataModule(pl.LightningDataModule):
    """The videos of one experiment.

    A list is a CSV file with the header `path,label`, a folder with one folder of videos for each class, or one of the
    official lists of Kinetics, UCF-101 or HMDB-51 (see read_video_list).

    Args:
        preprocessing: from video to network input; the same for validation, testing and inference.
        train_list: videos to train on: random clip, random short side, random crop, random flip.
        val_list: videos scored with one centre view after each training epoch.
        test_list: videos scored with all views of `protocol`.
        predict_list: videos to predict, labels not needed; the test list when None.
        root: the folder that relative paths in lists start from; each list's own folder when None.
        class_names: a list, or a .txt file with one class name a line, that gives the classes and their order; the
            training list when None. The command line takes a checkpoint's own when there is one. Only where it is given
            may a list have numbers for these names, from zero on.
        allow_missing: go on although listed videos do not exist. Training leaves them out and says how many; the other
            lists keep them, as videos that cannot be read.
        reader: what decodes videos: a2video.data.pyav_reader.PyAVReader (exact), decord_reader.DecordReader or
            torchcodec_reader.TorchCodecReader.
        metadata: the metadata.sqlite that data_prep/verify.py wrote, which saves looking through each file.
        protocol: which views of each video `test` and `predict` score and how these are averaged: Uniform, Dense or
            another class of a2video.data.protocols; num_clips x num_crops of preprocessing when None.
        train_sampler: chooses the frames in training; one random clip of preprocessing's frames when None.
        train_short_side: smallest and largest short side in training; preprocessing.short_side when None.
        train_area: instead of train_short_side: smallest and largest share of a frame's area that a training crop
            takes, at an aspect of 3/4 to 4/3, as is usual for ImageNet.
        horizontal_flip: probability of mirroring a training clip. Set it to 0 where left and right matter.
        augment: what else happens to training clips, on the device of the network; nothing when None.
        batch_size: clips in a batch of training and validation, on each device.
        test_batch_size: clips that go through the network together in testing and prediction, of several videos or of
            one, on each device: this bounds the memory. With another number the last bits of logits may differ.
        num_workers: decoding processes, on each device; results do not depend on it. With 0 the process itself
            decodes, and nothing can save it from a video that hangs or crashes the decoder. They serve all epochs.
        prefetch_to_device: copy batches to the GPU as soon as they are ready, while it computes, and keep up to two for
            each worker there; without a GPU or workers nothing changes.
        time_limit_seconds: a video that takes longer to read counts as one that cannot be read (needs a worker).
        max_worker_gib: memory that a worker may take, in GiB (of 1,024 MiB): a video that needs more counts as one that
            cannot be read. An equal share of the machine's for each worker when None.
        max_bad_share: training stops when more than this share of its videos cannot be read, in [0, 1]. Fewer are
            replaced by other videos and listed in bad_videos.csv.
        seed: of all sampling and augmentation.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        train_list: str | None = None,
        val_list: str | None = None,
        test_list: str | None = None,
        predict_list: str | None = None,
        root: str | None = None,
        class_names: str | None = None,
        allow_missing: bool = False,
        reader: type[VideoReader] = PyAVReader,
        metadata: str | None = None,
        protocol: Callable[[Preprocessing], Protocol] | None = None,
        train_sampler: ClipSampler | None = None,
        train_short_side: tuple[int, int] | None = None,
        train_area: tuple[float, float] | None = None,
        horizontal_flip: float = 0.5,
        augment: Augment | None = None,
        batch_size: int = 8,
        test_batch_size: int = 16,
        num_workers: int = 2,
        prefetch_to_device: bool = False,
        time_limit_seconds: float = 60.0,
        max_worker_gib: float | None = None,
        max_bad_share: float = 0.01,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(batch_size, test_batch_size) < 1 or num_workers < 0:
            raise InputError(
                "data.batch_size and data.test_batch_size must be at least 1 and data.num_workers at least 0, got "
                f"{batch_size}, {test_batch_size} and {num_workers}"
            )
        if max_worker_gib is not None and max_worker_gib <= 0:
            raise InputError(f"data.max_worker_gib must be above 0, got {max_worker_gib}")
        if time_limit_seconds <= 0 or not 0 <= max_bad_share <= 1:
            raise InputError(
                "expected data.time_limit_seconds > 0 and data.max_bad_share in [0, 1], got "
                f"{time_limit_seconds} and {max_bad_share}"
            )
        self.preprocessing = preprocessing
        self.train_list = train_list
        self.val_list = val_list
        self.test_list = test_list
        self.predict_list = predict_list
        self.root = root
        self.allow_missing = allow_missing
        self.reader = reader
        self.cache = None if metadata is None else MetadataCache(metadata)
        self.open_it = partial(open_video, reader=reader, cache=self.cache)
        self.class_source = class_names or train_list or val_list or test_list
        self.classes_of = None if class_names else self.class_source  # see read_video_list
        self.protocol = (protocol or OfPreprocessing)(preprocessing)
        self.train_sampler = _train_sampler(train_sampler, preprocessing)
        short_side = train_short_side or (preprocessing.short_side, preprocessing.short_side)
        crop_size = preprocessing.crop_size
        self.train_transform: Transform = RandomCrop(short_side, crop_size, horizontal_flip)
        if train_area is not None:
            if train_short_side is not None:
                raise InputError("data.train_area and data.train_short_side exclude each other: set one of them")
            self.train_transform = RandomArea(train_area, crop_size, horizontal_flip)
        self.augment = augment
        self.batch_size = batch_size
        self.test_batch_size = test_batch_size
        self.num_workers = num_workers
        self.prefetch_to_device = prefetch_to_device
        self.time_limit_seconds = time_limit_seconds
        self.max_worker_gib = max_worker_gib
        self.max_bad_share = max_bad_share
        self.seed = seed
        self.class_names: tuple[str, ...] = ()
        self.videos: dict[str, VideoList] = {}
        self.loaders: dict[str, WatchedLoader] = {}
        self.scored: Collection[int] = ()  # videos that an interrupted test has scored already

    def setup(self, stage: str) -> None:
        """Reads the class names and the lists that `stage` ("fit", "validate", "test" or "predict") needs.

        Raises:
            InputError: a list is not given, or wrong (see read_video_list).
        """
        if not self.class_names and self.class_source:
            self.class_names = read_class_names(self.class_source)
        lists_of = {
            "fit": {"train": self.train_list, "val": self.val_list},
            "validate": {"val": self.val_list},
            "test": {"test": self.test_list},
            "predict": {"predict": self.predict_list or self.test_list},
        }
        if stage not in lists_of:
            raise InputError(f"expected the stage {', '.join(lists_of)}, found {stage!r}")
        lists = lists_of[stage]
        for name, source in lists.items():
            if source is not None:
                listed = read_video_list(source, self.root, self.class_names, self.allow_missing, self.classes_of)
                self.videos[name] = listed.present() if name == "train" else listed
            elif name != "val" or stage == "validate":
                raise InputError(f"data.{name}_list is not set: give a list or a folder of class folders")
        if self.cache is not None:
            self._look_up(self.cache)
        num_devices = self.trainer.world_size if self.trainer else 1
        for name, source in lists.items():
            if source is not None:
                self._check(name, self.videos[name], num_devices)
        if stage == "test":
            self._warn_of_overlap(self.videos["test"])

    def _check(self, name: str, videos: VideoList, num_devices: int) -> None:
        """Refuses lists that cannot be used as `name`, and says how many videos there are."""
        if name != "predict" and NO_LABEL in videos.labels:
            raise InputError(f"{videos.source} has no labels, which data.{name}_list needs (only predict does without)")
        if not videos.class_names:
            raise InputError("the classes are not known: give data.class_names or a list with labels")
        if name == "train" and len(videos) // num_devices < self.batch_size:
            raise InputError(
                f"data.batch_size ({self.batch_size}) exceeds the {len(videos)} videos of {videos.source} shared by "
                f"{num_devices} device(s): lower it"
            )
        if len(videos) < num_devices:
            raise InputError(f"{videos.source} has {len(videos)} videos for {num_devices} devices: use fewer devices")
        rank_zero_info(f"{name}: {len(videos)} videos of {len(videos.class_names)} classes ({videos.source})")
        if name == "train" and (num_over := len(videos) % (self.batch_size * num_devices)):
            together = f"{self.batch_size} x {num_devices} devices" if num_devices > 1 else str(self.batch_size)
            rank_zero_info(
                f"train: each epoch leaves out {num_over} of the {len(videos)} videos, others each time, because "
                f"data.batch_size {together} does not divide them"
            )
        if videos.missing or videos.num_left_out:
            num_listed, num_present = len(videos) + videos.num_left_out, len(videos) - len(videos.missing)
            fate = "counted as not readable" if videos.missing else "left out"
            rank_zero_info(f"{name}: {num_present:,} of {num_listed:,} listed videos are present; the rest is {fate}")

    def _warn_of_overlap(self, tested: VideoList) -> None:
        """Says on the first rank which tested videos are in the training list, where that can be read here.

        By their paths alone, which is quick: `a2video doctor` finds equal files under other names too.
        """
        if self.train_list is None or (self.trainer is not None and not self.trainer.is_global_zero):
            return
        try:
            trained = read_video_list(self.train_list, self.root, allow_missing=True)
        except InputError:  # a test needs no training list, and may run where there is none
            return
        if both := tested.shared_with(trained):
            rank_zero_info(
                f"Warning: {len(both)} of {len(tested)} videos of data.test_list are in data.train_list too, such as "
                f"{shown(both[0])}: their accuracy is that of videos learnt by heart"
            )

    def _look_up(self, cache: MetadataCache) -> None:
        """Says so if the cache is of no use; raises InputError if it is none."""
        for videos in self.videos.values():
            if not any(cache.get(path) for path in videos.paths[:NUM_LOOKED_UP]):
                rank_zero_info(
                    f"{cache.path} knows none of the first {min(NUM_LOOKED_UP, len(videos))} videos of "
                    f"{videos.source} as they are now: write it anew with data_prep/verify.py"
                )

    def train_dataloader(self, name: str = "train") -> WatchedLoader:
        """Shuffled clips of train_sampler; an epoch takes each video once, but replaces those that are bad.

        Args:
            name: each name has one loader; the one that had it before is closed.
        """
        videos = self.videos["train"]
        dataset = VideoDataset(videos, self.train_sampler, self.train_transform, self.seed, True, self.open_it)
        overfits = getattr(self.trainer, "overfit_batches", 0) > 0  # always the same batches
        sampler = EpochSampler(len(dataset), not overfits, self.seed, drop_remainder=True)
        return self._loader(name, dataset, sampler, self.batch_size)

    def val_dataloader(self) -> WatchedLoader | list[WatchedLoader]:
        """One centre view of each video, once; a video that cannot be read is reported in the batch."""
        if "val" not in self.videos:
            return []
        return self._in_order("val", OneCentreClip(self.preprocessing), self.batch_size)

    def test_dataloader(self) -> WatchedLoader:
        """All views of each video's protocol, once; a video that cannot be read is reported in the batch."""
        return self._all_views("test", self.scored)

    def predict_dataloader(self) -> WatchedLoader:
        """Like test_dataloader, over the videos to predict."""
        return self._all_views("predict")

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augments what is trained on; draws depend on the seed, the epoch, the batch's number and the rank alone."""
        trainer = self.trainer
        if self.augment is None or trainer is None or not trainer.training:
            return batch
        batch_index = trainer.fit_loop.batch_idx + 1  # Lightning counts this batch after its transfer
        seed = (self.seed, trainer.current_epoch, batch_index, trainer.global_rank)
        clips, labels = self.augment(batch["clips"], batch["labels"], len(self.class_names), seed)
        return {**batch, "clips": clips, "labels": labels}

    def teardown(self, stage: str) -> None:
        """Ends the workers."""
        for loader in self.loaders.values():
            loader.close()
        self.loaders.clear()

    def on_exception(self, exception: BaseException) -> None:
        """Ends the workers."""
        self.teardown("")

    def _all_views(self, name: str, left_out: Collection[int] = ()) -> WatchedLoader:
        num_videos = self.test_batch_size // self.protocol.num_views if self.protocol.num_views else 1
        return self._in_order(name, self.protocol, num_videos, left_out)

    def _in_order(
        self, name: str, protocol: Protocol, batch_size: int, left_out: Collection[int] = ()
    ) -> WatchedLoader:
        dataset = VideoDataset(
            self.videos[name],
            protocol.sampler,
            protocol.transform,
            self.seed,
            open_it=self.open_it,
            centre=protocol.centre,
        )
        sampler = EpochSampler(len(dataset), shuffle=False, left_out=left_out)
        return self._loader(name, dataset, sampler, max(1, batch_size))

    def _loader(self, name: str, dataset: VideoDataset, sampler: EpochSampler, batch_size: int) -> WatchedLoader:
        if name in self.loaders:
            self.loaders[name].close()
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        self.loaders[name] = WatchedLoader(
            dataset,
            sampler,
            batch_size,
            drop_last=sampler.drop_remainder,
            num_workers=self.num_workers,
            time_limit_seconds=self.time_limit_seconds,
            pin_memory=on_gpu,
            prefetch=on_gpu and self.prefetch_to_device,
            max_worker_bytes=self._max_worker_bytes(),
        )
        return self.loaders[name]

    def _max_worker_bytes(self) -> int:
        if self.max_worker_gib is not None:
            return int(self.max_worker_gib * GIB)
        return share_of_memory(self.num_workers * (self.trainer.num_devices if self.trainer else 1))


def _train_sampler(sampler: ClipSampler | None, p: Preprocessing) -> ClipSampler:
    """The sampler itself if its clips fit the network, or the default one."""
    if sampler is None:
        return RandomClips(p.num_frames, p.frame_stride, target_fps=p.target_fps, short=p.short)
    for name in ("num_frames", "target_fps", "short"):
        if getattr(sampler, name) != getattr(p, name):
            raise InputError(
                f"data.train_sampler has {name} = {getattr(sampler, name)}, but data.preprocessing.{name} is "
                f"{getattr(p, name)}: make them equal, so that the network is tested on what it was trained on"
            )
    if sampler.num_clips is None:
        raise InputError(
            f"data.train_sampler {type(sampler).__name__} takes a different number of clips from each video, which "
            "make no batch: choose another"
        )
    return sampler
