"""How the recordings of a folder of one's own are divided over training, validation and test."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
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
    who = _spoken(recordings)
    groups: dict[str, set[str]] = {}
    for recording in recordings:
        groups.setdefault(_scope(recording, who), set()).add(_group(recording, who))
    split_of = {scope: splits(group) for scope, group in groups.items()}
    return [replace(one, split=split_of[_scope(one, who)][_group(one, who)]) for one in recordings]


def anew(
    recordings: list[Recording], left_out: Mapping[int, str], root: Path, corpus: object
) -> list[Recording] | None:
    """The same, divided again where what could not be used has left a split without any; None where it has not.

    left_out: why by place; root: where all of them lie; corpus: what to check. What was whole stays in its split: only what would
    otherwise lack one is divided again, and a label that has too few left is left out. Raises Unusable where too few are left of
    all.
    """
    who = _spoken(recordings)
    used = [recording for place, recording in enumerate(recordings) if place not in left_out]
    found: dict[str, set[str]] = {}
    for recording in used:
        found.setdefault(_scope(recording, who), set()).add(recording.split)
    lacking = {scope for scope, some in found.items() if some != SPLITS}
    if used and not lacking:
        return None
    again: dict[str, str] = {}
    faults = dict(left_out)
    for scope in lacking:
        own = [place for place, one in enumerate(recordings) if place not in left_out and _scope(one, who) == scope]
        if len({recordings[place].name for place in own}) >= FEWEST:
            again |= {one.clip: one.split for one in divided([recordings[place] for place in own])}
        else:
            faults |= dict.fromkeys(own, few_of(scope, "that can be used"))
    if len(recordings) - len(faults) < FEWEST:
        raise _too_few(recordings, left_out if "" in lacking else faults, root, corpus)
    return [
        replace(one, fault=faults.get(place, ""), split=again.get(one.clip, one.split))
        for place, one in enumerate(recordings)
    ]


def united(recordings: Collection[Recording]) -> dict[str, str]:
    """For each speaker, the first by name of those who are one with him: a name that recordings of several bear, such as the
    clean speech of pairs that lie in a folder for each level of noise, must not be in two splits."""
    leads, first = {one.speaker: one.speaker for one in recordings if one.speaker}, dict[str, str]()

    def lead(speaker: str) -> str:
        while leads[speaker] != speaker:
            speaker = leads[speaker]
        return speaker

    for one in recordings:
        if one.speaker:
            both = {lead(one.speaker), lead(first.setdefault(one.name, one.speaker))}
            leads |= dict.fromkeys(both, min(both))
    return {speaker: lead(speaker) for speaker in leads}


def few_of(label: str, which: str = "") -> str:
    return f"its label {label!r} has fewer than {FEWEST} recordings {which}".rstrip()


def _spoken(recordings: list[Recording]) -> dict[str, str]:
    """Who speaks in what bears a name; nobody where too few of those who speak are known for the splits to keep them apart."""
    leads = united(recordings)
    if len({*leads.values()}) < FEWEST:
        return {}
    return {one.name: leads[one.speaker] for one in recordings if one.speaker}


def _scope(recording: Recording, who: Mapping[str, str]) -> str:
    return "" if who else recording.label


def _group(recording: Recording, who: Mapping[str, str]) -> str:
    return who.get(recording.name, recording.name)


def _too_few(recordings: list[Recording], left_out: Mapping[int, str], root: Path, corpus: object) -> Unusable:
    listed = [(recordings[place].clip, left_out[place]) for place in sorted(left_out)]
    if len(listed) == len(recordings) >= FEWEST:
        return Unusable(f"corpus {str(root)!r}: no usable recording", listed, corpus)
    count, names = len(recordings) - len(listed), {one.name for n, one in enumerate(recordings) if n not in left_out}
    which = f"{len(recordings)} recordings are"
    if len(names) < FEWEST <= count:
        which = f"{count} recordings with the clean speech of {len(names)} are"
    elif count and listed:
        which = f"{count} of {len(recordings)} recordings can be used, which is"
    least = "training, validation and test need one each at least"
    return Unusable(f"corpus {str(root)!r}: {which} too few: {least}", listed, corpus)
