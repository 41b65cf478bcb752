"""What the fuzzers try: made-up lists, descriptions and checkpoints, which may be refused by an InputError only.

Each target takes bytes and makes an input of them. A hook watches what Python does meanwhile: what starts a process,
connects, removes, or opens a file outside the target's own folder for writing is a find too.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from a2video.data.folders import Folders
from a2video.data.official_lists import parse_hmdb51
from a2video.data.transforms import Preprocessing
from a2video.data.video_list import listed_paths, read_class_names, read_video_list
from a2video.errors import InputError
from a2video.inference.description import Description, beside
from a2video.inference.weights import load_trained
from a2video.models import a2net_tiny

FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pty.spawn")
REMOVING = ("os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "os.mkdir")
MAX_SENTENCE = 3000
ODD: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 10_000_000, 10**18, 2**63, 10**400, 0.5, 1e308, math.nan, math.inf),
    *("", "a2net_tiny", "resnet101", "os.system", "x" * 100_000, "\x1b[2J\ud800", "conv3.1", "loop", "float32"),
    *([], [1], ["conv3.1"], ["conv9.9"], [[]], ["a", "a"], ["left", "right"], [0.5, 0.5, 0.5], [math.nan] * 3),
    *({}, {"a": 1}, {"builder": "a2net_tiny", "arguments": {"num_classes": 10**9}}, {"__class__": "os.system"}),
]
FOR_TORCH: list[Any] = [
    *(torch.zeros(2), torch.zeros(0), torch.zeros(1).expand(10**6, 10**6), torch.zeros(2, dtype=torch.complex64)),
    *(torch.zeros(2, device="meta"), torch.zeros(2).to_sparse(), (1, 2), {1: 2}, b"ab"),
]
LIST_NAMES = ("list.csv", "list.txt", "ucf/trainlist01.txt", "ucf/classInd.txt", "hmdb/walk_test_split1.txt")


class Choices:
    """Whole numbers out of bytes; zeros at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def below(self, limit: int) -> int:
        """A number in [0, limit)."""
        return int.from_bytes(self._data.read(2), "big") % limit

    def rest(self) -> bytes:
        """What has not been used."""
        return self._data.read()


class Targets:
    """The targets, with a folder of their own and what they start from.

    Args:
        folder: exists; whatever lies there may be replaced.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = a2net_tiny(2)
        preprocessing = Preprocessing(4, 2, 32, 24, 3, 1)
        about = {"network": self.network.description, "class_names": ["left", "right"]}
        about["preprocessing"] = preprocessing.to_dict()
        state = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        self.checkpoint = {"a2video": about, "state_dict": state, "global_step": 1, "hyper_parameters": {}}
        from safetensors.torch import save

        self.weights = folder / "net.safetensors"
        self.weights.write_bytes(save(self.network.state_dict()))
        sums = {".safetensors": hashlib.sha256(self.weights.read_bytes()).hexdigest()}
        description = Description(self.network.description, ("left", "right"), preprocessing, "float32", sums)
        self.description = json.loads(description.to_json())
        small = io.BytesIO()
        torch.save({"a2video": about, "state_dict": {"network.fc.bias": torch.zeros(2)}}, small)
        self.small = small.getvalue()
        (folder / "ucf").mkdir()
        (folder / "hmdb").mkdir()
        self.is_watching = False
        sys.addaudithook(self._watch)

    def by_name(self) -> dict[str, Callable[[bytes], None]]:
        """All of them."""
        return {
            "lists": self.lists,
            "descriptions": self.descriptions,
            "description_text": self.description_text,
            "checkpoints": self.checkpoints,
            "checkpoint_bytes": self.checkpoint_bytes,
        }

    def lists(self, data: bytes) -> None:
        """The first two bytes choose the file's name, the rest is its content."""
        choices = Choices(data)
        file = self.folder / LIST_NAMES[choices.below(len(LIST_NAMES))]
        file.write_bytes(choices.rest())
        (self.folder / "ucf/classInd.txt").touch()
        self._only_refuses(lambda: read_video_list(file, allow_missing=True))
        self._only_refuses(lambda: read_video_list(f"{file}#train1", class_names=["a", "b"], allow_missing=True))
        self._only_refuses(lambda: listed_paths(file))
        self._only_refuses(lambda: read_class_names(file))
        self._only_refuses(lambda: parse_hmdb51(file.parent, "train1", ["walk_test_split1.txt"]))
        self._only_refuses(lambda: read_video_list(file.parent, allow_missing=True))
        assert Folders().content(str(file.parent)).files

    def descriptions(self, data: bytes) -> None:
        """Some values of a good description are replaced."""
        content = changed(self.description, Choices(data), ODD)
        try:
            text = json.dumps(content)
        except ValueError:  # a number of more digits than Python writes
            return
        beside(self.weights).write_text(text, encoding="utf-8")
        self._only_refuses(lambda: load_trained(self.weights))

    def description_text(self, data: bytes) -> None:
        """The bytes are the description."""
        beside(self.weights).write_bytes(data)
        self._only_refuses(lambda: load_trained(self.weights))

    def checkpoints(self, data: bytes) -> None:
        """Some values of a good checkpoint are replaced."""
        content = changed(self.checkpoint, Choices(data), ODD + FOR_TORCH)
        file = self.folder / "best.ckpt"
        torch.save(content, file)
        self._only_refuses(lambda: load_trained(file))

    def checkpoint_bytes(self, data: bytes) -> None:
        """Bytes within a small checkpoint are replaced, with or without its checksums made to fit again."""
        choices, content = Choices(data), bytearray(self.small)
        is_zip = choices.below(2) == 0
        for _ in range(choices.below(6)):
            start = choices.below(len(content))
            part = choices.below(256).to_bytes(1, "big") * (1 + choices.below(3))
            content[start : start + len(part)] = part
        content[: choices.below(2)] = choices.rest()[:64]
        file = self.folder / "bytes.ckpt"
        file.write_bytes(zipped_again(bytes(content)) if is_zip else content)
        self._only_refuses(lambda: load_trained(file))

    def _only_refuses(self, read: Callable[[], object]) -> None:
        self.is_watching = True
        sentence = ""
        try:
            read()
        except InputError as error:
            sentence = str(error)
        finally:
            self.is_watching = False
        assert len(sentence) < MAX_SENTENCE, f"a sentence of {len(sentence)} letters"

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_watching:
            return
        if event.startswith(FORBIDDEN + REMOVING):
            raise AssertionError(f"{event} {arguments}")
        if event == "open" and isinstance(arguments[0], str) and isinstance(arguments[1], str):
            is_outside = not os.path.realpath(arguments[0]).startswith(os.path.realpath(self.folder))
            if set(arguments[1]) & set("wax+") and is_outside:
                raise AssertionError(f"{event} {arguments}")
        if event == "import" and arguments[0].partition(".")[0] in ("os.system", "stranger", "__class__"):
            raise AssertionError(f"{event} {arguments}")


def changed(content: dict[str, Any], choices: Choices, values: list[Any]) -> dict[str, Any]:
    """A copy of nested dicts and lists in which up to four values are others, are gone, or are new."""
    made = copy.copy(content) if "state_dict" in content else copy.deepcopy(content)
    for name in ("a2video", "state_dict"):
        if name in made:
            made[name] = copy.deepcopy(made[name]) if name == "a2video" else dict(made[name])
    for _ in range(1 + choices.below(4)):
        place: Any = made
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = keys[choices.below(len(keys))]
            if not isinstance(place[key], dict | list) or choices.below(4) == 0:
                what = choices.below(8)
                if what == 0:
                    del place[key]
                elif what == 1 and isinstance(place, dict):
                    place[f"{key}2"] = values[choices.below(len(values))]
                else:
                    place[key] = values[choices.below(len(values))]
                break
            place = place[key]
    return made


def zipped_again(content: bytes) -> bytes:
    """The same archive with checksums that fit; as it is where it is none."""
    made = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as damaged, zipfile.ZipFile(made, "w") as whole:
            for entry in damaged.infolist():
                file = damaged.open(entry)
                file._expected_crc = None  # type: ignore[attr-defined]
                whole.writestr(entry.filename, file.read())
    except Exception:  # a damaged file can make zipfile raise anything
        return content
    return made.getvalue()


def replay(folder: Path) -> int:
    """Runs every file of folder/TARGET/ through its target; returns how many there were."""
    number = 0
    with tempfile.TemporaryDirectory() as own:
        for name, target in Targets(Path(own)).by_name().items():
            for file in sorted((folder / name).glob("*")):
                target(file.read_bytes())
                number += 1
    return number
