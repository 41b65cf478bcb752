"""Sends an MPEG-TS file at its own speed, as a live stream: python stream_server.py PORT FILE.ts, for HTTP and RTSP.

/live.ts has no stated length; /file.ts is that file at once, with its length; /stall.ts falls silent after 1.6 seconds;
/mjpeg sends JPEGs without times; /huge the same, but they claim 30000 x 30000; /list.m3u8, /list.sdp and /concat name
the local file; /redirect leads to it; /text is text; /silent answers nothing. RTSP has /live, MPEG-TS in RTP,
interleaved.
"""

from __future__ import annotations

import io
import itertools
import socketserver
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import av

PORT, FILE = int(sys.argv[1]), Path(sys.argv[2])
LISTS = {
    "/list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{FILE}\n#EXT-X-ENDLIST\n",
    "/concat": f"ffconcat version 1.0\nfile {FILE}\n",
    "/list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 33\n",
    "/text": "root:x:0:0:root:/root:/bin/bash\n" * 99,
}


def at_its_speed(stop_after: float = float("inf")) -> Iterator[tuple[float, bytes]]:
    """The file's bytes with their seconds, each when they are due."""
    data = FILE.read_bytes()
    with av.open(str(FILE)) as container:
        packets = [(float(p.dts * p.time_base), p.pos) for p in container.demux(video=0) if p.size]
    starts = [0, *(pos for _, pos in packets[1:])]
    ends = [*starts[1:], len(data)]
    begin = time.monotonic()
    for (seconds, _), start, end in zip(packets, starts, ends, strict=True):
        ahead = seconds - packets[0][0]
        if ahead > stop_after:
            return
        time.sleep(max(0.0, begin + ahead - time.monotonic()))
        yield seconds, data[start:end]


def jpegs() -> Iterator[bytes]:
    """The file's frames, each when it is due."""
    begin = None
    with av.open(str(FILE)) as container:
        for frame in container.decode(video=0):
            begin = begin or time.monotonic() - frame.time
            time.sleep(max(0.0, begin + frame.time - time.monotonic()))
            buffer = io.BytesIO()
            frame.to_image().save(buffer, "JPEG", quality=95)
            yield buffer.getvalue()


class Handler(socketserver.StreamRequestHandler):
    """Answers one connection."""

    def handle(self) -> None:
        try:
            while request := self.rfile.readline().split():
                headers = dict(line.decode().strip().split(": ", 1) for line in iter(self.rfile.readline, b"\r\n"))
                if b"RTSP" not in request[2]:
                    return self.http(request[1].decode().split("?")[0])
                self.rtsp(request[0].decode(), headers)
        except ConnectionError:
            pass

    def http(self, path: str) -> None:
        if path == "/silent":
            time.sleep(60)
        if path == "/redirect":
            return self.send(f"HTTP/1.1 302 Found\r\nLocation: file://{FILE}\r\n\r\n")
        self.send("HTTP/1.1 200 OK\r\nConnection: close\r\n")
        if path == "/file.ts":
            self.send(f"Content-Length: {FILE.stat().st_size}\r\n\r\n", FILE.read_bytes())
        elif path in ("/mjpeg", "/huge"):
            self.send("Content-Type: multipart/x-mixed-replace; boundary=next\r\n\r\n")
            for jpeg in jpegs():
                if path == "/huge":
                    start = jpeg.index(b"\xff\xc0") + 5
                    jpeg = jpeg[:start] + struct.pack("!HH", 30000, 30000) + jpeg[start + 4 :]
                self.send(f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n", jpeg, b"\r\n")
        elif path in LISTS:
            self.send(f"Content-Length: {len(LISTS[path].encode())}\r\n\r\n{LISTS[path]}")
        else:
            self.send("\r\n")
            for _, data in at_its_speed(1.6 if path == "/stall.ts" else float("inf")):
                self.send(data)
            time.sleep(60 if path == "/stall.ts" else 0)

    def rtsp(self, method: str, headers: dict[str, str]) -> None:
        body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"
        about = {
            "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}",
            "SETUP": f"Session: 1\r\nTransport: {headers.get('Transport')}\r\n\r\n",
        }
        self.send(f"RTSP/1.0 200 OK\r\nCSeq: {headers['CSeq']}\r\n", about.get(method, "Session: 1\r\n\r\n"))
        if method == "PLAY":
            numbers = itertools.count()
            for seconds, data in at_its_speed():
                for start in range(0, len(data), 7 * 188):
                    part = data[start : start + 7 * 188]
                    ticks = int(seconds * 90000) % 2**32
                    self.send(struct.pack("!BBHBBHII", 36, 0, 12 + len(part), 128, 33, next(numbers), ticks, 1), part)

    def send(self, *parts: str | bytes) -> None:
        for part in parts:
            self.wfile.write(part.encode() if isinstance(part, str) else part)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


if __name__ == "__main__":
    with Server(("127.0.0.1", PORT), Handler) as server:
        print("ready", flush=True)
        server.serve_forever()
