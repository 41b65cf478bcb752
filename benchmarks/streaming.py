"""Memory, latency and reconnects over 5 minutes of a network stream, with ffmpeg as the server.

    python benchmarks/streaming.py CHECKPOINT        # 5 minutes; writes results/streaming.md; needs the ffmpeg program

ffmpeg sends 640 x 360 H.264 at 25 frames a second as MPEG-TS over HTTP on this machine, at its own speed. It is killed
after 100 and after 200 seconds and starts again 8 seconds later. One clip each half second, on the CPU, one thread.
Latency is from the arrival of a clip's newest frame to the answer, up to 40 ms of which is the wait for the half
second. Memory is the process's resident set.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from report import circumstances, table, write

from a2video.inference.classifier import VideoClassifier
from a2video.inference.streams import LivePrediction, watch

ADDRESS = "http://127.0.0.1:8973/live.ts"
KILLED_AFTER, PAUSE, TOTAL = (100, 200), 8, 300  # seconds


def make_film(path: Path) -> None:
    """20 seconds of a test picture."""
    made = "-f lavfi -i testsrc2=size=640x360:rate=25 -t 20 -c:v libx264 -preset veryfast -g 25 -pix_fmt yuv420p"
    subprocess.run(["ffmpeg", "-v", "error", *made.split(), str(path)], check=True, stdin=subprocess.DEVNULL)


def serve(film: Path, stopping: threading.Event) -> None:
    """Runs ffmpeg as the server, and kills it and starts it again when it is time."""
    begin = time.monotonic()
    for until in (*KILLED_AFTER, 2 * TOTAL):
        sent = ["-re", "-stream_loop", "-1", "-i", str(film), "-c", "copy", "-f", "mpegts", "-listen", "1", ADDRESS]
        server = subprocess.Popen(["ffmpeg", "-v", "error", *sent], stdin=subprocess.DEVNULL)
        stopping.wait(begin + until - time.monotonic())
        server.kill()
        server.wait()
        if stopping.wait(PAUSE):
            return


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Watches for 5 minutes."""
    torch.set_num_threads(1)
    classifier = VideoClassifier.load(sys.argv[1], "cpu")
    stopping = threading.Event()
    seen: list[tuple[float, float, float]] = []  # seconds, latency, MiB
    events: list[str] = []

    def show(prediction: LivePrediction) -> None:
        seen.append((prediction.seconds, prediction.latency_seconds, resident()))

    begin = time.monotonic()

    def say(sentence: str) -> None:
        events.append(f"- {time.monotonic() - begin:.1f} s: {sentence}")
        print(events[-1], flush=True)

    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.ts"
        make_film(film)
        server = threading.Thread(target=serve, args=(film, stopping))
        server.start()
        time.sleep(5)  # until it listens
        begin = time.monotonic()
        cpu = time.process_time()
        try:
            summary = watch(classifier, ADDRESS, show=show, every_seconds=0.5, max_seconds=TOTAL, say=say)
        finally:
            stopping.set()
            server.join()
        cpu = time.process_time() - cpu
    rows = []
    for start in range(0, TOTAL, 30):
        part = np.array([row for row in seen if start <= row[0] < start + 30])
        times = [f"{1000 * value:.0f}" for value in (np.median(part[:, 1]), part[:, 1].max())]
        rows.append([f"{start} to {start + 30}", str(len(part)), *times, f"{part[:, 2].max():.1f}"])
    header = ["seconds", "clips", "latency, ms, median", "longest", "memory, MiB"]
    parts = ["# Streaming", circumstances(["torch", "av"]), (__doc__ or "").split("\n\n", 2)[2].strip()]
    spent = f"CPU time of the process, decoding and scoring: {cpu:.1f} seconds."
    write("streaming", "\n\n".join([*parts, f"{summary}.\n{spent}", "\n".join(events), table(header, rows)]))


if __name__ == "__main__":
    main()
