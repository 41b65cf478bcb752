"""Videos made for the tests of readers, and what a sequential decode makes of a file."""

import os
import random
import struct
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np

from a2video.data.packet_index import PacketIndex
from a2video.data.pyav_reader import PyAVReader

os.environ["SVT_LOG"] = "1"  # the AV1 encoder prints errors only
NUM_FRAMES = 90
BIT = 8  # pixels: side of the black and white squares that write a frame's number into its first rows


def picture(number, width, height):
    """A noisy gradient that moves, with `number` in 7 squares at the top."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 2 + number, y * 2 + number * 3, x + y + number * 5], axis=-1) % 256
    for bit in range(7):
        image[:BIT, bit * BIT : (bit + 1) * BIT] = 255 * (number >> bit & 1)
    return image.astype(np.uint8)


def read_number(image):
    """The number that `picture` wrote into an image."""
    return sum((image[2:6, bit * BIT + 2 : bit * BIT + 6].mean() > 128) << bit for bit in range(7))


def encode(
    path,
    codec="libx264",
    size=(96, 64),
    pix_fmt="yuv420p",
    options=None,
    times=None,
    num=NUM_FRAMES,
    rate=25,
    container=None,
):
    """Write `num` numbered pictures to `path`; `times` are their pts in 1/rate seconds."""
    with av.open(str(path), "w", container_options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1
        for number in range(num):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def remux(source, path, keep=lambda number, packet: True, shift=0):
    """Copy the video packets for which `keep` is true, `shift` seconds later."""
    with av.open(str(source)) as inp, av.open(str(path), "w") as out:
        template = inp.streams.video[0]
        stream = out.add_stream_from_template(template)
        for number, packet in enumerate(inp.demux(template)):
            if packet.size and keep(number, packet):
                offset = int(shift / packet.time_base)
                packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                packet.stream = stream
                out.mux(packet)
    return path


def turn(source, path, degrees):
    """Copy an MP4 with a display matrix for a clockwise turn."""
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version and flags, then 36 bytes, in a version 0 box
    one = 1 << 16
    a, b, c, d = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def truth(path):
    """All frames of a sequential decode, upright, up to the decoder's first error."""
    images = []
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.thread_type = "NONE"
        try:
            for frame in container.decode(stream):
                images.append(
                    np.rot90(frame.to_ndarray(format="rgb24"), {0: 0, 90: 1, -90: 3, 180: 2, -180: 2}[frame.rotation])
                )
        except av.FFmpegError:
            pass
    return images


def check_all_access(path, images):
    """Compare with `images`, without a cache's record and with it: everything in order, unsorted with repeats, and
    clips of 8 x 8 by fresh readers."""
    with PyAVReader(path) as video:
        record, times = video.record(), video.times
    kept = replace(record, index=PacketIndex.from_bytes(record.index.to_bytes()))
    num = len(images)
    num_labels = []  # known at the end: readers that had to start over have none left
    for given in (None, kept):
        rng = random.Random(0)
        with PyAVReader(path, given) as video:
            assert len(video) == num
            assert np.array_equal(video.times, times)
            assert all(map(np.array_equal, video.get_frames(range(num)), images))
            for _ in range(2):
                indices = np.array([rng.randrange(num) for _ in range(12)])
                assert all(map(np.array_equal, video.get_frames(indices), [images[index] for index in indices]))
        for _ in range(4):
            start = rng.randrange(num)
            indices = [min(start + 8 * step, num - 1) for step in range(8)]
            with PyAVReader(path, given) as video:
                assert all(map(np.array_equal, video.get_frames(indices), [images[index] for index in indices]))
                num_labels.append(len(video.record().index.labels))
    assert num_labels[:4] == num_labels[4:]


X264 = {"g": "12", "bf": "2", "preset": "veryfast", "sc_threshold": "0"}
OPEN_GOP = {"preset": "veryfast", "x264-params": "open-gop=1:keyint=12:bframes=3:b-adapt=0:scenecut=0"}
VFR_TIMES = np.cumsum([1 + (number * 7 % 5 == 0) * 3 + number % 2 for number in range(NUM_FRAMES)]).tolist()


DIVX_PACKED = b"\x00\x00\x01\xb2DivX503b1393p"
PICTURE = b"\x00\x00\x01\xb6"
NOT_CODED = PICTURE + int("0101101001001111", 2).to_bytes(2, "big")  # P picture, time, marker, not coded, stuffing


def pack(source, path):
    """Copy an MPEG-4 AVI as XviD writes it: a picture and the B picture shown before it in one packet, and a
    placeholder where the B pictures end."""
    with av.open(str(source)) as inp:
        stream = inp.streams.video[0]
        pictures = [bytes(packet) for packet in inp.demux(stream) if packet.size]
        are_b = [data[data.index(PICTURE) + 4] >> 6 == 2 for data in pictures]
        packed = []
        for number, data in enumerate(pictures):
            is_next_b = are_b[number + 1 : number + 2] == [True]
            if not are_b[number]:
                packed.append(data + (pictures[number + 1] if is_next_b else b""))
            else:  # went out with the picture before it; so its own place takes what comes next
                packed.append(pictures[number + 1] if is_next_b else NOT_CODED)
        packed[0] = packed[0].replace(PICTURE, DIVX_PACKED + PICTURE, 1)
        with av.open(str(path), "w") as out:
            copy = out.add_stream_from_template(stream)
            for number, data in enumerate(packed):
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.pts, packet.dts = copy, Fraction(1, 25), number, number
                packet.is_keyframe = b"\x00\x00\x01\xb0" in data or data[data.index(PICTURE) + 4] >> 6 == 0
                out.mux(packet)
    return path


def overstate(source, path, num):
    """Copy an AVI whose headers count `num` frames more than there are."""
    data = bytearray(source.read_bytes())
    for name, offset in ((b"avih", 24), (b"strh", 40)):
        at = data.index(name) + offset
        data[at : at + 4] = struct.pack("<I", struct.unpack("<I", data[at : at + 4])[0] + num)
    path.write_bytes(data)
    return path
