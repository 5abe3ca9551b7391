"""How the recordings of a folder of one's own are divided over training, validation and test."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from harness.data.recordings import Recording, Unusable, splits

FEWEST = 3  # groups to divide: one for training, one for validation, one for the test
SPLITS = {"train", "validation", "test"}
# Folders of these names hold a split or a side of pairs: learned as labels they would give a study of nothing, and taken for
# speakers they would be divided again.
A_PART = re.compile(
    r"(train(ing)?|dev(el)?|val(id)?(ation)?|test(ing)?|eval)([-_ ]?(set|data|clean|other|noisy|\d).*)?|(clean|noisy)(?![a-z]).*",
    re.IGNORECASE,
)


def divided(recordings: list[Recording]) -> list[Recording]:
    """Each with its split: by who speaks where that is known of enough, else by its name, those of each label by themselves."""
    named = spoken(recordings)
    groups: dict[str, set[str]] = {}
    for recording in recordings:
        groups.setdefault(_scope(recording, named), set()).add(_group(recording, named))
    split_of = {scope: splits(group) for scope, group in groups.items()}
    return [replace(one, split=split_of[_scope(one, named)][_group(one, named)]) for one in recordings]


def anew(
    recordings: list[Recording], left_out: Mapping[int, str], root: Path, corpus: object
) -> list[Recording] | None:
    """The same, divided again where what could not be used has left a split without any; None where it has not.

    left_out: why by place; root: where all of them lie; corpus: what to check. What was whole stays in its split: only what would
    otherwise lack one is divided again, and a label that has too few left is left out. Raises Unusable where too few are left of
    all.
    """
    named = spoken(recordings)
    used = [recording for place, recording in enumerate(recordings) if place not in left_out]
    found: dict[str, set[str]] = {}
    for recording in used:
        found.setdefault(_scope(recording, named), set()).add(recording.split)
    lacking = {scope for scope, some in found.items() if some != SPLITS}
    if used and not lacking:
        return None
    again: dict[str, str] = {}
    faults = dict(left_out)
    for scope in lacking:
        own = [place for place, one in enumerate(recordings) if place not in left_out and _scope(one, named) == scope]
        if len(own) >= FEWEST:
            again |= {one.clip: one.split for one in divided([recordings[place] for place in own])}
        else:
            faults |= dict.fromkeys(own, few_of(scope, "that can be used"))
    if len(recordings) - len(faults) < FEWEST:
        raise _too_few(recordings, left_out if "" in lacking else faults, root, corpus)
    return [
        replace(one, fault=faults.get(place, ""), split=again.get(one.clip, one.split))
        for place, one in enumerate(recordings)
    ]


def spoken(recordings: list[Recording]) -> bool:
    """Whether enough of those who speak are known for the splits to keep them apart."""
    return len({recording.speaker for recording in recordings} - {""}) >= FEWEST


def few_of(label: str, which: str = "") -> str:
    return f"its label {label!r} has fewer than {FEWEST} recordings {which}".rstrip()


def _scope(recording: Recording, named: bool) -> str:
    return "" if named else recording.label


def _group(recording: Recording, named: bool) -> str:
    return recording.speaker or recording.name if named else recording.name


def _too_few(recordings: list[Recording], left_out: Mapping[int, str], root: Path, corpus: object) -> Unusable:
    listed = [(recordings[place].clip, left_out[place]) for place in sorted(left_out)]
    if len(listed) == len(recordings) >= FEWEST:
        return Unusable(f"corpus {str(root)!r}: no usable recording", listed, corpus)
    count = len(recordings) - len(listed)
    which = f"{len(recordings)} recordings are"
    if count and listed:
        which = f"{count} of {len(recordings)} recordings can be used, which is"
    least = "training, validation and test need one each at least"
    return Unusable(f"corpus {str(root)!r}: {which} too few: {least}", listed, corpus)
