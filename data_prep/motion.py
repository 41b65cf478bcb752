"""Make the motion data set: short videos whose class can be told from motion and from no single frame.

The scene is a torus: what leaves on one side enters on the other. Every video shows two bright targets, A and
B, over a moving texture and among distractors, seen by a slightly shaking camera. Only `target_positions`
knows the class. A and B start independently and uniformly on the torus and every class moves them in a way
that keeps them so: a rendered frame has the same distribution in every class, at every time. (Compression
acts on the frames afterwards; train on one repeated frame to see that what it adds cannot be used.)

    python data_prep/motion.py --out data/motion --difficulty easy

writes `videos/<split>/*.mp4` and one `<split>.csv` (header `path,label`) per split. The class says how the
targets move on the screen. Only A moves: `right`, `down`, `left`, `up`, `clockwise`, `counterclockwise`. Both
move, in a random direction: `same_way`, `opposite_ways`, or `follow`, where A and B take turns and B repeats each move
of A. In the medium and hard sets all three go in turns of motion and rest, and differ only in how B's motion relates
to A's; in the easy one only `follow` does, which makes it easier to tell.
"""

import argparse
import csv
import json
import math
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from jobs import without_ctrl_c
from numpy.typing import NDArray
from tqdm import tqdm

SINGLE_DIRECTIONS = {"right": 0.0, "down": 90.0, "left": 180.0, "up": 270.0}  # degrees; y points down
BEAT = 15  # frames of motion, and then as many of rest
RELATIONS = {"same_way": (0.0, 0), "opposite_ways": (180.0, 0), "follow": (0.0, BEAT)}  # degrees and frames from A to B
CLASSES = (*SINGLE_DIRECTIONS, "clockwise", "counterclockwise", *RELATIONS)
SPLITS = ("train", "val", "test")
SIZE = 128  # pixels, height and width
NUM_FRAMES = 60
FRAME_RATE = 30  # frames per second

Array = NDArray[np.float64]
Frames = NDArray[np.uint8]
Distance = Callable[[Array, Array, float], Array]
Look = tuple[float, list[float]]  # radius in pixels, (R, G, B) in [0, 255]

# How far (x, y) is from the middle of a shape of radius r; 1.13 and 0.8 give nearly the area of the disc.
TARGET_SHAPES: dict[str, Distance] = {
    "disc": lambda x, y, r: np.hypot(x, y),
    "square": lambda x, y, r: 1.13 * np.maximum(abs(x), abs(y)),
    "diamond": lambda x, y, r: 0.8 * (abs(x) + abs(y)),
}
SHAPES: dict[str, Distance] = {
    **TARGET_SHAPES,
    "ring": lambda x, y, r: abs(np.hypot(x, y) - 0.75 * r) + 0.75 * r,
}


@dataclass(frozen=True)
class Difficulty:
    """What makes a video hard: pixels, pixels per frame; contrast and opacity in [0, 1]."""

    target_radius: tuple[float, float]
    target_speed: tuple[float, float]
    num_distractors: int
    distractor_speed: float
    distractor_opacity: float
    texture_contrast: float
    texture_speed: float
    camera_shake: float
    relations_in_beats: bool


DIFFICULTIES = {
    "easy": Difficulty((10, 12), (1.2, 1.8), 1, 0.2, 0.3, 0.08, 0.1, 0.5, False),
    "medium": Difficulty((7, 10), (1.0, 2.0), 3, 0.6, 0.6, 0.3, 0.3, 1.0, True),
    "hard": Difficulty((5, 8), (0.8, 2.0), 5, 1.2, 0.8, 0.4, 0.6, 2.0, True),
}


@dataclass(frozen=True)
class Course:
    """The random numbers of a motion, drawn without knowing the class.

    Attributes:
        speed: Pixels per frame, in every class.
        direction: Degrees in [0, 360): of the motion, or of the place on the circle at time 0.
        deviation: Degrees in [-20, 20), from a direction that the class prescribes.
        radius: Of the circle, in pixels.
        phase: Frames in [0, 2 * BEAT): where in its beat A starts.
    """

    speed: float
    direction: float
    deviation: float
    radius: float
    phase: float


def draw_course(rng: np.random.Generator, speed_range: tuple[float, float]) -> Course:
    """Draw the random numbers of one motion."""
    speed, direction, deviation = rng.uniform(*speed_range), rng.uniform(0, 360), rng.uniform(-20, 20)
    return Course(speed, direction, deviation, radius=rng.uniform(8, 11), phase=rng.uniform(0, 2 * BEAT))


def unit(degrees: float | Array) -> Array:
    """The unit vector (x, y) in a direction; on the screen, where y points down, angles grow clockwise."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=-1)


def in_beats(times: Array, phase: float) -> Array:
    """How far one gets from time 0 by moving at speed 2 for a beat and resting for a beat: speed 1 on average."""

    def moved(time: Array) -> Array:
        return 2 * (BEAT * np.floor(time / (2 * BEAT)) + np.minimum(time % (2 * BEAT), BEAT))

    return moved(times + phase) - moved(np.array(phase))


def target_positions(label: str, start: Array, course: Course, times: Array, relations_in_beats: bool = True) -> Array:
    """Where A and B are: the only function that knows the class.

    For example `left` at speed 1 with no deviation takes A from (50, 20) to (40, 20) in 10 frames.

    Args:
        label: One of `CLASSES`.
        start: Shape (2, 2), (x, y) of A and B at time 0, in pixels.
        course: The random numbers of the motion.
        times: Shape (T,), in frames.
        relations_in_beats: Whether `same_way` and `opposite_ways` go in beats, as `follow` does, or steadily.

    Returns:
        Shape (2, T, 2), in pixels and not wrapped: take it modulo `SIZE`.
    """
    travelled = (course.speed * times)[:, None]  # (T, 1)
    stay = np.zeros((len(times), 2))
    if label in SINGLE_DIRECTIONS:
        moves = [travelled * unit(SINGLE_DIRECTIONS[label] + course.deviation), stay]
    elif label in ("clockwise", "counterclockwise"):
        sense = 1 if label == "clockwise" else -1
        turned = np.rad2deg(sense * course.speed * times / course.radius)  # (T,)
        moves = [course.radius * (unit(course.direction + turned) - unit(course.direction)), stay]
    elif label in RELATIONS:
        angle, delay = RELATIONS[label]
        paths = [in_beats(times, course.phase), in_beats(times, course.phase + 2 * BEAT - delay)]
        if not (relations_in_beats or delay):
            paths = [times, times]
        directions = [unit(course.direction), unit(course.direction + angle)]
        moves = [course.speed * p[:, None] * d for p, d in zip(paths, directions, strict=True)]
    else:
        raise ValueError(f"label must be one of {', '.join(CLASSES)}, got {label!r}")
    return start[:, None] + np.stack(moves)


def wobble(rng: np.random.Generator, amplitude: float) -> Array:
    """A smooth random path around the origin, shape (T, 2), in pixels."""
    periods, phases = rng.uniform(15, 40, size=(2, 2)), rng.uniform(0, 2 * np.pi, size=(2, 2))
    angles = 2 * np.pi * np.arange(NUM_FRAMES)[:, None, None] / periods + phases  # (T, 2 waves, 2 axes)
    path: Array = amplitude * np.sin(angles).mean(axis=1)
    return path


def draw_look(rng: np.random.Generator, radius_range: tuple[float, float]) -> Look:
    """A radius, and a bright colour: one channel full, one nearly empty, one anywhere between."""
    return rng.uniform(*radius_range), rng.permutation([255, 30, rng.uniform(30, 255)]).tolist()


def moving_texture(rng: np.random.Generator, contrast: float, path: Array) -> Frames:
    """Smooth coloured noise on the torus, shifted along `path` (T, 2) by whole pixels; returns frames."""
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)) * SIZE  # waves per side
    spectrum = np.fft.rfft2(rng.standard_normal((3, SIZE, SIZE))) * np.exp(-((frequency / 8) ** 2))
    spectrum[1:] = 0.7 * spectrum[0] + 0.3 * spectrum[1:]  # mostly grey
    noise = np.fft.irfft2(spectrum, s=(SIZE, SIZE))
    texture = np.clip(90 + 127 * contrast * noise / noise.std(), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return np.stack([np.roll(texture, (y, x), axis=(0, 1)) for x, y in np.rint(path).astype(int)])


def draw_object(frames: Frames, path: Array, shape: str, look: Look, opacity: float) -> None:
    """Draw one object with soft edges into `frames` along `path` (T, 2), wrapped around the borders."""
    radius, colour = look
    reach = np.arange(-math.ceil(1.3 * radius) - 1, math.ceil(1.3 * radius) + 2)
    centre = np.rint(path).astype(int)
    x = (reach - (path - centre)[:, :1])[:, None, :]  # (T, 1, P), distance from the object's centre
    y = (reach - (path - centre)[:, 1:])[:, :, None]  # (T, P, 1)
    distance = SHAPES[shape](x, y, radius)  # (T, P, P)
    alpha = opacity * np.clip(radius + 0.5 - distance, 0, 1)[..., None].astype(np.float32)  # (T, P, P, 1)
    rows, columns = (centre[:, 1:] + reach) % SIZE, (centre[:, :1] + reach) % SIZE  # (T, P)
    where = np.arange(len(frames))[:, None, None], rows[:, :, None], columns[:, None, :]
    frames[where] = (1 - alpha) * frames[where] + alpha * np.array(colour, np.float32)


def draw_targets(label: str, rng: np.random.Generator, difficulty: Difficulty) -> tuple[Array, Array]:
    """Draw what is drawn first of a video: where A and B are (2, T, 2), without the camera's path, and that (T, 2)."""
    course = draw_course(rng, difficulty.target_speed)
    start, times = rng.uniform(0, SIZE, size=(2, 2)), np.arange(NUM_FRAMES, dtype=float)
    targets = target_positions(label, start, course, times, difficulty.relations_in_beats)
    return targets, wobble(rng, difficulty.camera_shake)


def render(label: str, rng: np.random.Generator, difficulty: Difficulty) -> Frames:
    """Draw one video; `rng` is used the same way whatever the label."""
    targets, camera = draw_targets(label, rng, difficulty)
    times = np.arange(NUM_FRAMES, dtype=float)

    def drift(top_speed: float) -> Array:
        return camera + times[:, None] * rng.uniform(0, top_speed) * unit(rng.uniform(0, 360))

    frames = moving_texture(rng, difficulty.texture_contrast, drift(difficulty.texture_speed))
    for _ in range(difficulty.num_distractors):
        path = rng.uniform(0, SIZE, size=2) + drift(difficulty.distractor_speed)
        look = draw_look(rng, difficulty.target_radius)
        draw_object(frames, path, "ring", look, difficulty.distractor_opacity)
    for positions in targets:
        shape, look = str(rng.choice(list(TARGET_SHAPES))), draw_look(rng, difficulty.target_radius)
        draw_object(frames, positions + camera + wobble(rng, 0.7), shape, look, opacity=1.0)
    return frames


def encode(path: Path, frames: Frames) -> None:
    """Write `frames` as H.264, with one thread so that the bytes do not depend on the machine's load."""
    unfinished = path.with_name(f".part-{path.name}")
    with av.open(str(unfinished), "w") as container:
        options = {"preset": "veryfast", "crf": "20", "threads": "1"}
        stream = container.add_stream("libx264", rate=FRAME_RATE, options=options)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    unfinished.replace(path)


def label_of(seed: int, split: str, index: int) -> str:
    """The class of a video: each run of `len(CLASSES)` videos holds every class once, in random order."""
    block, place = divmod(index, len(CLASSES))
    order = np.random.default_rng([seed, SPLITS.index(split), block, 1]).permutation(len(CLASSES))
    return CLASSES[int(order[place])]


def generator_of(seed: int, split: str, index: int) -> np.random.Generator:
    """What video `index` of a split is drawn with."""
    return np.random.default_rng([seed, SPLITS.index(split), index])


def make_video(job: tuple[Path, Difficulty, int, str, int]) -> None:
    """Draw and write video `index` of a split, which depends on the seed, the split and the index alone."""
    path, difficulty, seed, split, index = job
    encode(path, render(label_of(seed, split, index), generator_of(seed, split, index), difficulty))


def generate(out: Path, settings: dict[str, Any], num_workers: int) -> bool:
    """Write the data set under `out`, or keep the finished one that is there.

    Returns:
        Whether anything was written.

    Raises:
        ValueError: When `out` holds a data set with other settings.
    """
    record, text = out / "motion.json", json.dumps(settings, indent=2) + "\n"
    if record.exists():
        if record.read_text() != text:
            raise ValueError(f"{out} holds a motion data set with other settings; choose another --out.")
        return False
    jobs = []
    for split in SPLITS:
        (out / "videos" / split).mkdir(parents=True, exist_ok=True)
        with (out / f"{split}.csv").open("w", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["path", "label"])
            for index in range(settings["num_videos"][split]):
                name = f"videos/{split}/{index:05d}.mp4"
                table.writerow([name, label_of(settings["seed"], split, index)])
                difficulty = DIFFICULTIES[settings["difficulty"]]
                jobs.append((out / name, difficulty, settings["seed"], split, index))
    with without_ctrl_c():
        pool = multiprocessing.get_context("spawn").Pool(num_workers)
    with pool:
        for _ in tqdm(pool.imap_unordered(make_video, jobs, chunksize=4), total=len(jobs), unit="video"):
            pass
    unfinished = record.with_suffix(".part")
    unfinished.write_text(text)
    unfinished.replace(record)
    return True


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the motion data set.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--difficulty", choices=sorted(DIFFICULTIES), default="easy")
    parser.add_argument("--num-train", type=int, default=1008)
    parser.add_argument("--num-val", type=int, default=90)
    parser.add_argument("--num-test", type=int, default=252)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-workers", type=int, default=2, help="processes; the bytes do not depend on it")
    given = parser.parse_args(arguments)
    counts = dict(zip(SPLITS, (given.num_train, given.num_val, given.num_test), strict=True))
    if min(*counts.values(), given.seed) < 0 or given.num_workers < 1:
        parser.error("counts and seed must not be negative and --num-workers must be at least 1")
    settings = {
        "difficulty": given.difficulty,
        **asdict(DIFFICULTIES[given.difficulty]),
        "seed": given.seed,
        "num_videos": counts,
        "classes": CLASSES,
        "num_frames": NUM_FRAMES,
        "frame_rate": FRAME_RATE,
        "size": SIZE,
    }
    try:
        wrote = generate(given.out, settings, given.num_workers)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "Stopped; run it again to make them all.\n")
    total = f"{sum(counts.values())} videos of {len(CLASSES)} classes"
    print(f"{'Wrote' if wrote else 'Kept the finished'} {total} in {given.out}")


if __name__ == "__main__":
    main()
