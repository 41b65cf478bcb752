"""Make lists of the Kinetics videos that are present, from an official CSV and a folder of videos.

    python data_prep/kinetics.py --csv val.csv --videos DIR --out kinetics_val.csv

The videos may lie in DIR itself, in class folders, or in train/, val/ and test/, under the names `ID_000001_000011`
or `ID` with any video suffix. Writes `kinetics_val.csv` with the header `path,label`, and `kinetics_val_missing.csv`
with the official rows whose video is not there. A CSV of several splits gives one list each: `kinetics_val_train.csv`
and so on.
Exit status: 0; 1 if no video is present; 2 for wrong input.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from common import write_table
from lists import describe_others, find_videos

from a2video.data.folders import Folders
from a2video.data.kinetics import KineticsListing, is_kinetics, parse_kinetics
from a2video.data.list_formats import header_of, read_text, rows_of
from a2video.data.video_list import read_class_names, refuse_repeated
from a2video.errors import InputError


def class_names(listing: KineticsListing, classes: Path | None) -> set[str]:
    """The classes of the file `classes`, or those of the CSV.

    Raises:
        InputError: the CSV has a class that `classes` lacks.
    """
    labels = {label for label in listing.labels if label is not None}
    names = set(read_class_names(classes)) if classes else labels
    if labels - names:
        label = min(labels - names)
        place = listing.places[listing.labels.index(label)]
        raise InputError(
            f"{place}: expected a label that is one of the {len(names)} classes of {classes}, found {label!r}"
        )
    return names


def make_lists(table: Path, videos: Path, out: Path, classes: Path | None) -> int:
    """Writes the lists and says what is present; returns the number of present videos.

    Raises:
        InputError: the CSV or the classes are wrong, `videos` is no folder, or files are ambiguous.
    """
    text = read_text(table)
    if not is_kinetics(text):
        raise InputError(
            f"{table} line 1: expected a header with youtube_id, time_start, time_end, found no youtube_id"
        )
    if not videos.is_dir():
        raise InputError(f"--videos {videos} is no folder: give the folder that holds the videos")
    listing = parse_kinetics(table, text)
    if not listing:
        raise InputError(f"{table} is empty: it must name at least one video")
    names, is_labelled = class_names(listing, classes), None not in listing.labels
    folders, root = Folders(), str(videos.absolute())
    on_disk = find_videos(root, folders)
    paths, missing = listing.locate(root, folders)
    refuse_repeated(listing, paths)
    absent = set(missing)
    present = [index for index in range(len(listing)) if index not in absent]

    splits = sorted(set(listing.splits))
    for split in splits:
        chosen = [index for index in present if listing.splits[index] == split]
        path = out.with_stem(f"{out.stem}_{split}") if len(splits) > 1 else out
        if is_labelled:
            write_table(path, ["path", "label"], ((paths[i], listing.labels[i]) for i in chosen))
        else:
            write_table(path, ["path"], ((paths[i],) for i in chosen))
        num_expected = listing.splits.count(split)
        print(f"{split or 'videos'}: {len(chosen):,} of {num_expected:,} are present ({path})")
    rows = (row for index, (_, row) in enumerate(rows_of(table, text, len(header_of(text)))) if index in absent)
    missing_path = out.with_stem(f"{out.stem}_missing")
    write_table(missing_path, header_of(text), rows)
    print(f"missing: {len(absent):,} ({missing_path})")
    print(describe_others(videos, on_disk, (paths[index] for index in present)))
    if is_labelled:
        without = sorted(names - {listing.labels[index] for index in present})
        example = f", such as {without[0]!r}" if without else ""
        print(f"{len(without):,} of {len(names):,} classes have no video{example}")
    print(f"Listed {len(present):,} of {len(listing):,} videos")
    return len(present)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make lists of the Kinetics videos that are present.")
    parser.add_argument("--csv", type=Path, required=True, help="official CSV file")
    parser.add_argument("--videos", type=Path, required=True, help="folder of the videos")
    parser.add_argument("--out", type=Path, required=True, help="list to write")
    parser.add_argument("--classes", type=Path, help="text file with one class name a line, to compare with")
    given = parser.parse_args(arguments)
    try:
        num_present = make_lists(given.csv, given.videos, given.out, given.classes)
    except (InputError, OSError) as error:
        parser.exit(2, f"{error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "Stopped; run it again.\n")
    if num_present == 0:
        parser.exit(1)


if __name__ == "__main__":
    main()
