"""How the peers load a clip, each as its own documentation does; whatever is not installed is left out.

decord comes with a2video. The others want an environment of their own, put before it on PYTHONPATH:
    pip install --no-deps --target peers torchvision==0.28.0 torchcodec==0.13.0    # torchcodec needs FFmpeg's libraries
torchvision does not import beside a CPU build of torch; what it misses is declared here: three operators, and an old
name that pytorchvideo uses. That is for measuring only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from a2video.data.transforms import Preprocessing, resize

if find_spec("torchvision"):  # now, because torchmetrics imports it too
    OPERATORS = torch.library.Library("torchvision", "DEF")
    OPERATORS.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    OPERATORS.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    OPERATORS.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    )

Size = tuple[int, int]  # height and width in pixels
# (path, frame numbers, frames per second, size) -> uint8 or float frames (T, 3, *size)
Load = Callable[[Path, Sequence[int], float, Size], Tensor]


def decord_clip(path: Path, indices: Sequence[int], fps: float, size: Size) -> Tensor:
    """decord at full size, resized as ours."""
    import decord

    video = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
    batch = video.get_batch(list(indices))  # pytorchvideo makes it torch's for the whole process
    frames = batch if isinstance(batch, Tensor) else torch.from_numpy(batch.asnumpy())
    return resize(frames.permute(0, 3, 1, 2), size)


def torchcodec_clip(path: Path, indices: Sequence[int], fps: float, size: Size) -> Tensor:
    """torchcodec in its exact mode, resized as ours."""
    from torchcodec.decoders import VideoDecoder

    video = VideoDecoder(str(path), seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC")
    return resize(video.get_frames_at(list(indices)).data.permute(0, 3, 1, 2), size)


def _pytorchvideo(decoder: str) -> Load:
    def load(path: Path, indices: Sequence[int], fps: float, size: Size) -> Tensor:
        encoded_video, subsample, scale = _import_pytorchvideo()
        video = encoded_video.from_path(str(path), decode_audio=False, decoder=decoder)
        clip = video.get_clip(indices[0] / fps, (indices[-1] + 1) / fps)["video"]  # (3, T, H, W)
        video.close()
        small: Tensor = scale(subsample(clip, len(indices)), min(size))
        return small.transpose(0, 1)

    return load


def _import_pytorchvideo() -> tuple[Any, Any, Any]:
    import torchvision.transforms._functional_tensor as functional_tensor

    sys.modules["torchvision.transforms.functional_tensor"] = functional_tensor
    from pytorchvideo.data.encoded_video import EncodedVideo
    from pytorchvideo.transforms.functional import short_side_scale, uniform_temporal_subsample

    return EncodedVideo, uniform_temporal_subsample, short_side_scale


PEERS: dict[str, Load] = {
    "decord": decord_clip,
    "torchcodec": torchcodec_clip,
    "pytorchvideo (PyAV)": _pytorchvideo("pyav"),
    "pytorchvideo (decord)": _pytorchvideo("decord"),
}


def all_views(path: str, p: Preprocessing) -> Tensor:
    """The views of a test, normalized, as few steps as pytorchvideo allows: each clip is resized once for its crops."""
    encoded_video, subsample, scale = _import_pytorchvideo()
    from pytorchvideo.transforms.functional import uniform_crop

    video = encoded_video.from_path(path, decode_audio=False, decoder="pyav")
    seconds, views = _clip_seconds(p), []
    for start in np.linspace(0, max(0.0, float(video.duration) - seconds), p.num_clips).tolist():
        clip = scale(subsample(video.get_clip(start, start + seconds)["video"], p.num_frames), p.short_side)
        views += [uniform_crop(clip, p.crop_size, crop) for crop in range(p.num_crops)]
    video.close()
    return p.normalize(torch.stack(views))


def all_views_dataset(paths: Sequence[str], p: Preprocessing) -> Any:
    """pytorchvideo's own data set of the views of a test, one by one, normalized, with the steps of its tutorials."""
    _import_pytorchvideo()
    from pytorchvideo.data import LabeledVideoDataset
    from pytorchvideo.data.clip_sampling import ConstantClipsPerVideoSampler
    from pytorchvideo.transforms import Normalize, ShortSideScale, UniformCropVideo, UniformTemporalSubsample
    from torch.utils.data import SequentialSampler

    on_clip = [UniformTemporalSubsample(p.num_frames), lambda x: x / 255.0, Normalize(p.mean, p.std)]
    on_clip.append(ShortSideScale(p.short_side))
    crop = UniformCropVideo(p.crop_size)

    def transform(item: dict[str, Any]) -> dict[str, Any]:
        for step in on_clip:
            item["video"] = step(item["video"])
        return crop(item)

    return LabeledVideoDataset(
        [(path, {"label": 0}) for path in paths],
        ConstantClipsPerVideoSampler(_clip_seconds(p), p.num_clips, p.num_crops),
        video_sampler=SequentialSampler,
        transform=transform,
        decode_audio=False,
        decoder="pyav",
    )


def _clip_seconds(p: Preprocessing) -> float:
    return p.num_frames * p.frame_stride / 30


def importable_peers(video: Path) -> tuple[dict[str, Load], list[str]]:
    """The peers that load a clip of `video`, and why the others do not."""
    found, absent = {}, []
    for name, load in PEERS.items():
        try:
            load(video, [0, 1], 25.0, (32, 48))
            found[name] = load
        except Exception as error:  # (whatever goes wrong in a peer, the others are measured)
            absent.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
    return found, absent
