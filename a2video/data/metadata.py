"""The metadata cache: what data_prep/verify.py found out about videos, so that nobody has to look again."""

from __future__ import annotations

import os
import sqlite3
import zlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from a2video.data.packet_index import PacketIndex
from a2video.errors import InputError

SCHEMA = """
CREATE TABLE IF NOT EXISTS videos (
    path TEXT PRIMARY KEY, num_bytes INTEGER, modified_ns INTEGER, num_frames INTEGER, fps REAL, width INTEGER,
    height INTEGER, rotation INTEGER, duration_seconds REAL, codec TEXT, container TEXT, num_keyframes INTEGER,
    packet_index BLOB
)
"""


@dataclass(frozen=True)
class VideoRecord:
    """What is known of one video.

    Attributes:
        index: frames and keyframes.
        fps: average frames per second as the file states it; 0.0 if it does not.
        width: pixels of the upright picture.
        height: likewise.
        rotation: degrees counterclockwise that turn the stored picture upright: 0, 90, 180 or 270.
        duration_seconds: from the first frame to the end of the last.
        codec: FFmpeg's name of the decoder.
        container: FFmpeg's name of the format.
    """

    index: PacketIndex
    fps: float
    width: int
    height: int
    rotation: int
    duration_seconds: float
    codec: str
    container: str


class MetadataCache:
    """Records of videos in one SQLite file, each valid while its video has the same size and time of change.

    Paths are kept relative to the cache's folder, so that a data set can be moved with its cache. Safe to use in
    several processes.

    Args:
        path: the file; made by the first `put`.

    Raises:
        InputError: on use, if the file is no metadata cache.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._folder = os.path.dirname(os.path.realpath(path))  # noqa: PTH120 (links are followed, here and in videos)
        self._connection: tuple[int, sqlite3.Connection] | None = None  # of the process with this number

    def get(self, video: str | os.PathLike[str]) -> VideoRecord | None:
        """The record of a video; None if there is none, or the file has changed since."""
        try:
            status = Path(video).stat()
        except (OSError, ValueError):
            return None
        query = (
            "SELECT packet_index, fps, width, height, rotation, duration_seconds, codec, container FROM videos "
            "WHERE path = ? AND num_bytes = ? AND modified_ns = ?"
        )
        try:
            row = self._connect().execute(query, (self._key(video), status.st_size, status.st_mtime_ns)).fetchone()
            return None if row is None else VideoRecord(PacketIndex.from_bytes(row[0]), *row[1:])
        except (sqlite3.Error, zlib.error, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.path} is no metadata cache of this version of a2video ({error}): write it anew with "
                "data_prep/verify.py"
            ) from error

    def put(self, video: str | os.PathLike[str], record: VideoRecord) -> None:
        """Adds or replaces the record of a video as it is on disk now."""
        status, index = Path(video).stat(), record.index
        row = (
            *(self._key(video), status.st_size, status.st_mtime_ns, index.num_frames, record.fps),
            *(record.width, record.height, record.rotation, record.duration_seconds),
            *(record.codec, record.container, len(index.keyframes), index.to_bytes()),
        )
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
                connection.execute(SCHEMA)
                connection.execute(f"INSERT OR REPLACE INTO videos VALUES ({', '.join('?' * len(row))})", row)
        except sqlite3.Error as error:
            raise InputError(f"{self.path} cannot be written as a metadata cache ({error}): move it away") from error

    def _key(self, video: str | os.PathLike[str]) -> str:
        path = os.path.relpath(os.path.realpath(video), self._folder)
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None or self._connection[0] != os.getpid():  # a connection must not be used after a fork
            if not self.path.is_file():
                raise InputError(f"metadata cache {self.path} does not exist: write it with data_prep/verify.py")
            connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
            self._connection = (os.getpid(), connection)
        return self._connection[1]

    def __getstate__(self) -> dict[str, object]:
        """Without the connection, which is of this process."""
        return {**self.__dict__, "_connection": None}
