"""Make lists of the UCF-101 videos that are present, from the official lists and a folder of videos.

    python data_prep/ucf101.py --lists ucfTrainTestlist --videos UCF-101 --out data/ucf101

The videos may lie in class folders (`UCF-101/Class/v_*.avi`) or all in one folder. Writes `train1.csv`, `test1.csv`
and so on for the three splits, with the header `path,label`, `*_missing.csv` for the videos that are not there, and
`class_names.txt` in the official order. Refuses lists whose training and test videos come from the same group (scene).
Exit status: 0; 1 if no video is present; 2 for wrong input.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from common import write_table
from lists import describe_others, find_videos

from a2video.data.folders import Folders
from a2video.data.list_formats import Listing, read_text
from a2video.data.official_lists import parse_ucf101, read_class_index
from a2video.data.video_list import refuse_repeated
from a2video.errors import InputError

GROUP = re.compile(r"(.+_g[0-9]+)_")  # v_Punch_g20_c02.avi is clip 2 of group 20 of its class


def groups_of(listing: Listing) -> dict[str, str]:
    """The groups of a list, each with the place of its first video.

    Raises:
        InputError: a video's name has no group.
    """
    groups: dict[str, str] = {}
    for place, video in zip(listing.places, listing.paths, strict=True):
        match = GROUP.match(video.rpartition("/")[2])
        if match is None:
            raise InputError(f"{place}: expected a name with the group such as v_Punch_g20_c02.avi, found {video!r}")
        groups.setdefault(match[1], place)
    return groups


def check_groups(train: Listing, test: Listing) -> None:
    """Refuses a split whose training and test videos share a group: they would show the same scene."""
    in_training = groups_of(train)
    for group, place in groups_of(test).items():
        if group in in_training:
            raise InputError(f"{place}: group {group} is also for training ({in_training[group]}): get the lists again")


def make_lists(lists: Path, videos: Path, out: Path) -> int:
    """Writes the lists and says what is present; returns the number of present videos over all lists.

    Raises:
        InputError: a list is wrong, or `videos` is no folder.
    """
    names = read_class_index(lists / "classInd.txt")
    splits = []
    for split in (1, 2, 3):
        files = [lists / f"{part}list{split:02d}.txt" for part in ("train", "test")]
        train, test = (parse_ucf101(file, read_text(file)) for file in files)
        check_groups(train, test)
        splits.append((train, test))
    if not videos.is_dir():
        raise InputError(
            f"--videos {videos} is no folder: give the folder that holds the videos or their class folders"
        )
    own_folder = videos / "UCF-101"
    folders, root = Folders(), str((own_folder if own_folder.is_dir() else videos).absolute())
    on_disk = find_videos(root, folders)

    found: set[str] = set()
    for split, parts in enumerate(splits, 1):
        counts = []
        for part, listing in zip(("train", "test"), parts, strict=True):
            paths, missing = listing.locate(root, folders)
            refuse_repeated(listing, paths)
            absent = set(missing)
            present = [index for index in range(len(listing)) if index not in absent]
            for name, rows in (
                (f"{part}{split}.csv", [(paths[i], listing.labels[i]) for i in present]),
                (f"{part}{split}_missing.csv", [(listing.paths[i], listing.labels[i]) for i in missing]),
            ):
                write_table(out / name, ["path", "label"], rows)
            found.update(paths[index] for index in present)
            counts.append(f"{part} {len(present):,} of {len(listing):,}")
        print(f"split {split}: {', '.join(counts)} videos are present")
    (out / "class_names.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    print(describe_others(Path(root), on_disk, found))
    print(f"Wrote the lists of {len(found):,} videos and {len(names)} classes to {out}")
    return len(found)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make lists of the UCF-101 videos that are present.")
    parser.add_argument("--lists", type=Path, required=True, help="folder with classInd.txt, trainlist01.txt and so on")
    parser.add_argument("--videos", type=Path, required=True, help="folder of the videos or of their class folders")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    given = parser.parse_args(arguments)
    try:
        num_present = make_lists(given.lists, given.videos, given.out)
    except (InputError, OSError) as error:
        parser.exit(2, f"{error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "Stopped; run it again.\n")
    if num_present == 0:
        parser.exit(1)


if __name__ == "__main__":
    main()
