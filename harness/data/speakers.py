"""Who speaks in a folder of one's own: by the table `speakers.csv`, else by the folder that a recording lies in."""

from __future__ import annotations

import csv
import os
import posixpath
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

from harness.data.division import A_PART, FEWEST, united
from harness.data.recordings import Recording, composed, within
from harness.errors import UserError

TABLE = "speakers.csv"
COLUMNS = ("file", "speaker")
Row = tuple[int, str, str]  # line, file, speaker


def speakers(root: Path, recordings: Collection[tuple[Path, ...]]) -> list[str]:
    """Who speaks in each recording, given by its files; "" where nobody says so. UserError where folders are named as splits are:
    taken for speakers, they would be mixed and divided again."""
    told = _told(root, recordings)[0] if os.path.lexists(root / TABLE) else {}
    names = [within(paths[0], root) for paths in recordings]
    by_folder = {place: _by_folder(name) for place, name in enumerate(names) if not told.get(place)}
    if wrong := {
        names[place].partition("/")[0] + f"/{who}" for place, who in by_folder.items() if A_PART.fullmatch(who)
    }:
        raise UserError(
            f"corpus {str(root)!r}: its folders {', '.join(sorted(wrong)[:8])} are named as splits or sides of pairs are, not as "
            f"speakers; splits are made by the harness. Tell who speaks in {TABLE} (file,speaker), or put the recordings one "
            "folder higher"
        )
    return [told.get(place) or by_folder[place] for place in range(len(names))]


def remarks(root: Path, recordings: list[Recording], left_out: Collection[int]) -> list[str]:
    """What to say, before anything is believed of a folder, of how far its speakers are kept apart. left_out: by place."""
    said = []
    if os.path.lexists(root / TABLE):
        paths = [(one.path, *([one.noisy] if one.noisy else [])) for one in recordings if one.path != root]
        _, lost, disputed = _told(root, paths)
        for lines, what in ((lost, "no recording"), (disputed, "another speaker than a row before it")):
            if lines:
                each = "row names" if len(lines) == 1 else "rows name"
                said.append(f"{len(lines)} {each} {what} in {TABLE}, the first in line {lines[0]}")
    used = [one for place, one in enumerate(recordings) if place not in left_out]
    people, nobody = united(used), sum(not one.speaker for one in used)
    names = {*people.values()}
    if len(names) < len(people):
        said.append(f"{len(people)} speakers are held for {len(names)}: the same clean speech is of several")
    if not names:
        said.append("nobody is named who speaks: the test may share speakers with training")
    elif len(names) < FEWEST:
        each = (
            "speaker is named: the test shares him" if len(names) == 1 else "speakers are named: the test shares them"
        )
        said.append(f"only {len(names)} {each} with training")
    elif nobody:
        said.append(f"{nobody} of {len(used)} recordings have no speaker: the test may share theirs with training")
    return said


def _told(root: Path, recordings: Collection[tuple[Path, ...]]) -> tuple[dict[int, str], list[int], list[int]]:
    """Speakers by the places of recordings, the lines of rows that name none, and of those that contradict a row before.

    A row names a file by its path, the path without the first folder, or its name. What names none in this way is looked for with
    slashes for backslashes, without the beginning of a path that leads here from elsewhere, and without an ending, where one
    recording alone is meant.
    """
    rows = list(_rows(root / TABLE))
    by_file = {file: speaker for _, file, speaker in rows}
    keys = [[key for path in paths for key in _keys(within(path, root), composed(path.name))] for paths in recordings]
    told = {
        place: speaker
        for place, own in enumerate(keys)
        if (speaker := next(filter(None, (by_file.get(key) for key in own)), ""))
    }
    whole = _places(keys)
    stems = _places([[posixpath.splitext(key)[0] for key in own] for own in keys]) if by_file.keys() - whole else {}
    lost: list[int] = []
    disputed: list[int] = []
    said: dict[int | str, str] = {}
    for line, file, speaker in rows:
        places = whole.get(file, set())
        meant = next(iter(places)) if len(places) == 1 else None
        if not places:
            meant = _meant(file.replace("\\", "/"), whole, stems)
            if meant is None:
                lost.append(line)
                continue
            if speaker:
                told.setdefault(meant, speaker)
        # A name that several files bear is held to itself alone: a row of one of them is an exception to it, no contradiction.
        if speaker and said.setdefault(file if meant is None else meant, speaker) != speaker:
            disputed.append(line)
    return told, lost, disputed


def _places(keys: list[list[str]]) -> dict[str, set[int]]:
    """The recordings that each key is of."""
    places: dict[str, set[int]] = {}
    for place, own in enumerate(keys):
        for key in own:
            places.setdefault(key, set()).add(place)
    return places


def _meant(file: str, keys: Mapping[str, set[int]], stems: Mapping[str, set[int]]) -> int | None:
    parts = [part for part in file.split("/") if part not in ("", ".")]
    # A name alone, of a path that leads elsewhere, may be another recording's.
    tails = ["/".join(parts[first:]) for first in range(max(1, len(parts) - 1))]
    for tail in tails:
        for known in (keys, stems):
            if len(places := known.get(tail, set())) == 1:
                return next(iter(places))
    return None


def _rows(table: Path) -> Iterator[Row]:
    try:
        file = open(table, newline="", encoding="utf-8-sig", errors="replace")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"{table}: cannot be read: {error.strerror}: let it be read, or take it away") from error
    with file:
        reader = csv.DictReader(file)
        try:
            if not {*COLUMNS} <= set(reader.fieldnames or ()):
                raise UserError(f"{table}: its first line must be: {','.join(COLUMNS)}")
            for row in reader:
                name, speaker = (composed(row[column] or "") for column in COLUMNS)
                yield reader.line_num, PurePosixPath(name).as_posix(), speaker.strip()
        except csv.Error as error:
            raise UserError(f"{table}: line {reader.line_num}: {error}") from error


def _keys(name: str, last: str) -> tuple[str, str, str]:
    """By what a row may name a file: its path, the path without the first folder, its name."""
    return name, name.partition("/")[2], last


def _by_folder(name: str) -> str:
    rest = name.partition("/")[2]
    return rest.partition("/")[0] if "/" in rest else ""
