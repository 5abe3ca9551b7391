"""Who speaks: what a table may call a file, and what is said where speakers cannot be kept apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.division import divided
from harness.data.recordings import Recording
from harness.data.speakers import remarks, speakers
from harness.errors import UserError

FILES = ("clean/s1/a.wav", "clean/s1/b.wav", "clean/s2/a.wav", "clean/deep/er/c.FLAC")


def told(root: Path, *rows: str, files: tuple[str, ...] = FILES) -> tuple[list[str], list[str]]:
    """Speakers of some files, and what is said of a folder of them."""
    (root / "speakers.csv").write_text("\n".join(["file,speaker", *rows]))
    paths = [(root / file,) for file in files]
    who = speakers(root, paths)
    made = [Recording(file, file, "", "", root / file, speaker=one) for file, one in zip(files, who, strict=True)]
    return who, remarks(root, divided(made), ())


@pytest.mark.parametrize(
    ("file", "place"),
    [
        ("clean/s1/b.wav", 1),
        ("s1/b.wav", 1),
        ("b.wav", 1),
        ("./s1/b.wav", 1),
        (r"s1\b.wav", 1),
        (r"C:\corpus\clean\s2\a.wav", 2),
        ("/old/disk/clean/s2/a.wav", 2),
        ("/old/disk/s1/b", 1),
        ("b", 1),
        ("clean/s2/a", 2),
        ("c", 3),
        ("c.FLAC", 3),
    ],
)
def test_a_row_may_name_a_file_in_many_ways(file, place, tmp_path):
    who, said = told(tmp_path, f"{file},Ann ")
    assert who == ["Ann" if number == place else FILES[number].split("/")[1] for number in range(4)]
    assert not any("name" in line and "no recording" in line for line in said)


@pytest.mark.parametrize("file", ["a", "d.wav", "elsewhere/b.wav", "s3/a.wav", "", "/", "clean", r"\\"])
def test_a_row_that_names_no_file_or_several_without_its_ending_is_counted(file, tmp_path):
    who, said = told(tmp_path, "s1/b.wav,Bob", f"{file},Ann")
    assert who == ["s1", "Bob", "s2", "deep"]
    assert said == ["1 row names no recording in speakers.csv, the first in line 3"]


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (["s1/b.wav,Ann", "s1/b.wav,Bob"], 3),
        (["clean/s1/b.wav,Ann", "d.wav,", "b.wav,Bob"], 4),
        (["b.wav,Ann", r"C:\corpus\clean\s1\b.wav,Bob"], 3),
        (["a.wav,Ann", "a.wav,Bob"], 3),  # a name that two files bear
        (["s1/b.wav,Ann", "s1/b.wav,Ann"], None),  # says it twice
        (["s1/b.wav,Ann", "s1/b.wav,"], None),  # does not know
        (["a.wav,Ann", "s1/a.wav,Bob"], None),  # an exception
    ],
)
def test_rows_that_contradict_each_other_are_counted(rows, line, tmp_path):
    _, said = told(tmp_path, *rows)
    found = [text for text in said if "another speaker" in text]
    assert found == (
        [f"1 row names another speaker than a row before it in speakers.csv, the first in line {line}"] if line else []
    )


def test_a_name_that_several_files_bear_means_all_of_them_as_it_always_has(tmp_path):
    who, said = told(tmp_path, "a.wav,Ann", "x.wav,Bob", "y.wav,Bob")
    assert who == ["Ann", "s1", "Ann", "deep"]
    assert said == ["2 rows name no recording in speakers.csv, the first in line 3"]


FLAT = tuple(f"speech/{number}.wav" for number in range(6))


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("", ["nobody is named who speaks: the test may share speakers with training"]),
        ("aaaaaa", ["only 1 speaker is named: the test shares him with training"]),
        ("aabb", ["only 2 speakers are named: the test shares them with training"]),
        ("aabbc", ["1 of 6 recordings have no speaker: the test may share theirs with training"]),
        ("aabbcc", []),
    ],
)
def test_what_keeps_speakers_from_being_kept_apart_is_said(who, said, tmp_path):
    rows = [f"{number}.wav,{one}" for number, one in enumerate(who)]
    assert told(tmp_path, *rows, files=FLAT)[1] == said


@pytest.mark.parametrize("content", ["file;speaker\na;b", "a,b\n", "", "file,speaker\n" + "x" * 200_000])
def test_a_table_that_is_none_is_one_line(content, tmp_path):
    (tmp_path / "speakers.csv").write_text(content)
    with pytest.raises(UserError, match=r"speakers\.csv: ") as caught:
        speakers(tmp_path, [(tmp_path / "speech" / "a.wav",)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("odd", "why"),
    [(Path.mkdir, "Is a directory"), (lambda table: table.symlink_to("gone"), "No such file or directory")],
)
def test_a_table_that_cannot_be_read_is_one_line(odd, why, tmp_path):
    odd(tmp_path / "speakers.csv")
    with pytest.raises(UserError) as caught:
        speakers(tmp_path, [(tmp_path / "speech" / "a.wav",)])
    assert str(caught.value) == f"{tmp_path}/speakers.csv: cannot be read: {why}: let it be read, or take it away"
