"""Writes the tables of README.md anew from what they come from: the networks themselves, and benchmarks/results/.

    python benchmarks/readme.py        # `make readme`

A line `<!-- table NAME -->` in README.md stands right before each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ablation_networks import LOCALS, MAIN
from report import RESULTS, table

from a2video.models.catalog import costs, costs_table

README = RESULTS.parents[1] / "README.md"
LIKE_KINETICS, LIKE_UCF101 = "340x256 H.264, keyframes 0, 187, 230, 268", "320x240 XviD AVI, packed B pictures"
CLIPS = {  # rows of loading.md, and how README calls them
    f"{LIKE_KINETICS}: 8 x 8 to 128": "340x256 H.264 as Kinetics comes, 8 frames, stride 8, to 128",
    f"{LIKE_KINETICS}: 16 x 2 to 128": "the same, 16 frames, stride 2",
    "960x720 H.264, 10 s, GOP 250: 8 x 8 to 256": "960x720 H.264, 8 frames, stride 8, to 256",
    f"{LIKE_UCF101}: 8 x 8 to 128": "320x240 XviD AVI as UCF-101 comes, 8 frames, stride 8, to 128",
    LIKE_KINETICS: "10 clips x 3 crops of a 10 s video, 340x256",
}


class Result:
    """A file in benchmarks/results/: its text, and its tables as rows of cells, headers included."""

    def __init__(self, name: str) -> None:
        self.path = RESULTS / f"{name}.md"
        self.text = self.path.read_text(encoding="utf-8")
        self.tables = _tables(self.text)

    def row(self, number: int, *cells: str) -> list[str]:
        """The row of a table that begins with these cells."""
        return next(row for row in self.tables[number] if row[: len(cells)] == list(cells))

    def section(self, heading: str) -> list[list[list[str]]]:
        """The tables below a heading that begins so, up to the next one."""
        found = re.search(rf"^#+ {re.escape(heading)}.*\n((?:(?!#).*\n)*)", self.text, re.MULTILINE)
        if found is None:
            raise ValueError(f"no heading {heading!r} in {self.path}")
        return _tables(found[1])


def _tables(text: str) -> list[list[list[str]]]:
    return [
        [[cell.strip() for cell in line[1:-1].split(" | ")] for line in block.strip().splitlines()]
        for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    ]


def speed() -> str:
    """What README says of block.md, inference.md and network.md: shares of time."""
    block, inference, network = Result("block"), Result("inference"), Result("network")
    ours, peer = block.row(0, "ours"), block.row(0, "non-local (pytorchvideo)")
    large = next(row[0] for row in inference.tables[0] if row[0].startswith("a2net_resnet50, 1 threads"))
    torch, openvino, int8 = (
        inference.row(0, large, name)[4] for name in ("torch, as classify", "OpenVINO float32", "OpenVINO int8")
    )
    step, last = network.row(2, "+ our block and network")[2], network.row(2, "+ channels_last_3d")[2]
    cost = re.findall(r"our network takes ([\d.]+x) the time without", network.text)[-1]
    textbook, plain = "of the textbook block", "of the plain network"
    rows = [
        ["our block at conv3, forward (`block.py`, one thread)", ours[2], textbook],
        ["with backward; memory kept for it", f"{ours[4]}; {ours[6]}", textbook],
        ["with backward", f"{float(ours[3]) / float(peer[3]):.2f}", "of pytorchvideo's non-local block"],
        ["`a2net_resnet50`, a clip, in `classify` (`inference.py`, one thread)", torch, plain],
        ["the same exported to OpenVINO; 8 bits", f"{openvino}; {int8}", plain],
        ["a training step, two threads (`network.py`); with `model.channels_last`", f"{step}; {last}", plain],
        ["what the five blocks cost in training", cost, "of our network without them"],
    ]
    return table(["", "time", ""], [[name, share.replace("x", ""), of] for name, share, of in rows])


def decoding() -> str:
    """What README says of loading.md: milliseconds."""
    loading, rows = Result("loading"), []
    for name, title in CLIPS.items():
        is_single = name in (row[0] for row in loading.tables[0])
        cells = loading.row(0 if is_single else 1, name)
        values = [f"{float(cells[k].split()[0]):.0f}" for k in ((1, 2, 4, 5, 6) if is_single else range(1, 6))]
        if "XviD" in name:  # by the table of kinds of files
            values[3:] = [f"{values[3]} (wrong frames)", f"{values[4]} (wrong order)"]
        rows.append([title, *values])
    rows[-1][1] += " (all frames)"
    return table(["clip", "libavcodec alone", "a2video", "decord", "torchcodec", "pytorchvideo (PyAV)"], rows)


def ablation(heading: str) -> str:
    """What README says of one comparison of ablation.md: costs and accuracies, and differences to the first row."""
    reached, apart, *_ = Result("ablation").section(heading)
    header, _, *rows = reached
    costs = [header.index(name) for name in ("parameters, M", "multiply-adds, M", "step")]
    names = ("video top-1", header[-1])
    places = [(header.index(name), apart[0].index(name)) for name in names]
    differences = {row[0]: row for row in apart[2:]}
    cells = []
    for row in rows:
        found = [(row[here], differences[row[0]][there] if row[0] in differences else "") for here, there in places]
        cells.append([row[0], *(row[k] for k in costs), *(cell for pair in found for cell in pair)])
    return table(
        ["network", *(header[k] for k in costs), *(cell for name in names for cell in (name, apart[0][0]))], cells
    )


def fights() -> str:
    """What README says of ablation.md's real clips."""
    result, places = Result("ablation"), (3, 4)  # video top-1, mean recall
    (scratch, _), (motion, apart) = (result.section(heading) for heading in ("From scratch", "From motion"))
    names = [f"{start}: {scratch[0][k]}" for start in ("from scratch", "from motion") for k in places]
    differences = {row[0]: row[2] for row in apart[2:]}
    rows = [
        [a[0], *(a[k] for k in places), *(b[k] for k in places), differences.get(a[0], "")]
        for a, b in zip(scratch[2:], motion[2:], strict=True)
    ]
    return table(["network", *names, f"{names[2]} {apart[0][0]}"], rows)


def tables(networks: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Every table of README.md that is made here, by its name; `networks` as a2video.models.catalog.costs has them."""
    return {
        "networks": costs_table(networks),
        "speed": speed(),
        "decoding": decoding(),
        "ablation": ablation(MAIN.title),
        "ablation local": ablation(LOCALS.title),
        "ablation fights": fights(),
    }


def filled(text: str, made: dict[str, str]) -> str:
    """A text with its tables replaced; ValueError if one has no place in it, or a place no table."""
    if unknown := set(re.findall(r"<!-- table (.*?) -->", text)) - set(made):
        raise ValueError(f"README.md has markers of tables that nothing makes: {', '.join(sorted(unknown))}")
    for name, lines in made.items():
        marker = f"<!-- table {name} -->\n"
        if text.count(marker) != 1:
            raise ValueError(f"README.md must have one line {marker.strip()!r}, found {text.count(marker)}")
        before, after = text.split(marker)
        text = before + marker + lines + "\n" + re.sub(r"\A(\|.*\n)*", "", after)
    return text


def main() -> None:
    """The command line."""
    README.write_text(filled(README.read_text(encoding="utf-8"), tables(costs())), encoding="utf-8")
    print(f"Wrote the tables of {README}")


if __name__ == "__main__":
    main()
