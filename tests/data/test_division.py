from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.data.division import SPLITS, anew, divided, united
from harness.data.recordings import Recording, Unusable


def recordings(speakers: list[str], labels: int = 0) -> list[Recording]:
    return [
        Recording(
            f"{n}.wav", f"{n}.wav", who or "unknown", "", Path(), label=f"{n % labels}" if labels else "", speaker=who
        )
        for n, who in enumerate(speakers)
    ]


@given(
    speakers=st.lists(st.sampled_from(["", "a", "b", "c", "d"]), min_size=3, max_size=20),
    labels=st.sampled_from([0, 2]),
    bad=st.sets(st.integers(0, 19)),
)
def test_every_split_keeps_something_and_no_speaker_is_in_two(speakers, labels, bad):
    before = divided(recordings(speakers, labels))
    left_out = {place: "bad" for place in bad if place < len(before)}
    after = None
    with suppress(Unusable):
        after = anew(before, left_out, Path("folder"), "folder")
    if after is None:
        used = [one for place, one in enumerate(before) if place not in left_out]
        assert len(used) < 3 or labels or {one.split for one in used} == SPLITS
        return
    assert [one.clip for one in after] == [one.clip for one in before]
    used = [one for one in after if not one.fault]
    assert all(after[place].fault == "bad" for place in left_out)
    named = {one.speaker for one in used} - {""}
    if len(named) >= 3:
        assert {one.split for one in used} == SPLITS
        assert all(len({one.split for one in used if one.speaker == who}) == 1 for who in named)


@given(
    st.lists(st.tuples(st.sampled_from(["", *"abcdefg"]), st.sampled_from("uvwxyz")), min_size=3, max_size=30),
    st.sets(st.integers(0, 29), max_size=6),
)
def test_what_bears_one_name_is_in_one_split_whoever_speaks(told, bad):
    made = [Recording(f"{n}", name, who or "unknown", "", Path(), speaker=who) for n, (who, name) in enumerate(told)]
    with suppress(Unusable):
        before = divided(made)
        left_out = {place: "bad" for place in bad if place < len(made)}
        used = [one for one in anew(before, left_out, Path("folder"), "folder") or before if not one.fault]
        assert all(len({one.split for one in used if one.name == name}) == 1 for name in {one.name for one in used})
        assert {one.split for one in used} == SPLITS


def test_speakers_who_share_a_name_are_one_and_others_are_not():
    shared = [("b", "1"), ("a", "1"), ("c", "2"), ("d", "3"), ("c", "3"), ("", "1"), ("e", "4"), ("d", "1")]
    made = [Recording(f"{n}", name, who, "", Path(), speaker=who) for n, (who, name) in enumerate(shared)]
    assert united(made) == {"a": "a", "b": "a", "c": "a", "d": "a", "e": "e"}


def test_whoever_is_whole_stays_where_he_is():
    before = divided(recordings(["a", "b", "c", "d", "e", "f", "a"]))
    assert anew(before, {}, Path(), "") is None
    assert anew(before, {0: "bad"} if before[0].split == "train" else {}, Path(), "") is None


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_are_one_line(count):
    with pytest.raises(Unusable, match=f"{count} recordings are too few: training, validation and test need one each"):
        anew(divided(recordings([""] * count)), {}, Path("folder"), "folder")
