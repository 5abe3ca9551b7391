"""Folders of one's own: what is taken for what, what is left out, and how the rest is split."""

from __future__ import annotations

import errno
import io
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import audio, build, corpora
from harness.data.bank import Bank, open_bank
from harness.data.recordings import alike
from harness.errors import UserError
from tests.conftest import here
from tests.data import layouts
from tests.data.layouts import write
from tests.real import prompts_folder


@pytest.fixture(autouse=True, scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with layouts.kept_apart(tmp_path_factory.mktemp("audio")):
        yield


def opened(root: Path, said: list[str] | None = None) -> Bank:
    return open_bank(corpora.card(str(root)), say=[].append if said is None else said.append)


PUBLISHED = {  # a folder, and what there is to be said of it
    "librispeech/LibriSpeech": "laid out as librispeech: use CORPUS=librispeech DATA_DIR={folder}",
    "librispeech": "laid out as librispeech: use CORPUS=librispeech DATA_DIR={folder}/LibriSpeech",
    "voicebank_demand": "laid out as voicebank_demand: use CORPUS=voicebank_demand DATA_DIR={folder}",
    "demand": "laid out as demand: use CORPUS=demand DATA_DIR={folder}",
    "speech_commands": "use CORPUS=speech_commands (or speech_commands_12) DATA_DIR={folder}",
    "esc50": "laid out as esc50: use CORPUS=esc50 DATA_DIR={folder}/ESC-50-master",
    "my fsdd": "use CORPUS=fsdd DATA_DIR='{folder}'",
    "fsdd": "laid out as fsdd: use CORPUS=fsdd DATA_DIR={folder}",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_public_corpus_given_as_a_folder_is_told_by_its_name(name, tmp_path):
    top = name.partition("/")[0]
    layouts.PUBLIC[top.removeprefix("my ")](tmp_path / top)
    with pytest.raises(UserError) as caught:
        corpora.card(str(tmp_path / name))
    assert PUBLISHED[name].format(folder=tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("beside", ["", "noise"])
def test_a_public_corpus_given_as_the_speech_of_a_folder_is_told_by_its_name(beside, tmp_path):
    layouts.librispeech(tmp_path)
    (tmp_path / "LibriSpeech").rename(tmp_path / "speech")
    if beside:
        layouts.demand(tmp_path / "noise")
    with pytest.raises(UserError, match="laid out as librispeech: use CORPUS=librispeech") as caught:
        corpora.card(str(tmp_path))
    assert str(caught.value).endswith(f"DATA_DIR={tmp_path / 'speech'}")


def test_recordings_that_are_named_as_those_of_a_public_corpus_are_ones_own(tmp_path):
    for number, clip in zip(range(6), layouts.speech(), strict=False):
        # DEMAND's places have capitals, and FSDD's recordings the names of its speakers.
        write(tmp_path / ("kitchen", "street")[number % 2] / f"ch{number // 2:02d}.wav", clip)
        write(tmp_path / "recordings" / f"my_own_{number}.wav", clip[::-1])
    assert corpora.card(str(tmp_path)).kind == "labels"


def labelled(root: Path, *names: str, each: int = 3) -> None:
    clips = layouts.speech(1.6)
    for name in names:
        for number in range(each):
            write(root / name / f"{number}.wav", next(clips))


@pytest.mark.parametrize(
    "names",
    [
        ("train/clean", "train/noisy", "test/clean", "test/noisy"),
        ("Train", "VAL"),
        ("dog", "cat", "eval"),
        ("train-clean-100", "dev-other"),
        ("clean_train", "noisy_train"),
        ("validation_set", "testing"),
    ],
)
def test_splits_and_sides_of_pairs_are_no_labels(names, tmp_path):
    for name in names:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.wav").write_bytes(b"")
    with pytest.raises(UserError, match=r"are named as splits or sides .* may hold: clean/ and noisy/ with") as caught:
        corpora.card(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert "dog" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("pairs", ("train", "valid", "test")),
        ("speech", ("train", "Dev_set", "test")),
        ("clean", ("Ann", "Bob", "eval")),
        ("labels", ("training", "validation", "testing")),
    ],
)
def test_splits_are_no_speakers(kind, parts, tmp_path):
    tops = {"pairs": ("clean", "noisy"), "labels": ("yes", "no")}.get(kind, (kind,))
    clips, rows = layouts.speech(1.6), ["file,speaker"]
    for top in tops:
        for number in range(9):
            file = write(tmp_path / top / parts[number // 3] / f"{number}.wav", next(clips))
            rows.append(f"{file.relative_to(tmp_path)},{'ABCD'[number % 4]}")
    with pytest.raises(UserError, match="are named as splits or sides of pairs are, not as speakers") as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert (f"{tops[0]}/{part}" in str(caught.value)) == (part not in ("Ann", "Bob"))
    (tmp_path / "speakers.csv").write_text("\n".join(rows))
    assert set(opened(tmp_path).clips.voice) == {*"ABCD"}


@pytest.mark.parametrize("names", [("cleaning", "tested"), ("valley", "trainer"), ("recordings", "train-whistle")])
def test_words_that_only_begin_like_a_split_are_labels(names, tmp_path):
    labelled(tmp_path, *names)
    said: list[str] = []
    assert set(opened(tmp_path, said).clips.label) == {*names}
    assert said[1] == f"{tmp_path.name}: labels: {', '.join(sorted(names))}"


def test_folders_that_begin_with_an_underscore_are_no_labels_and_listed(tmp_path):
    labelled(tmp_path, "yes", "no", "_background_noise_")
    bank = opened(tmp_path)
    assert set(bank.clips.label) == {"yes", "no"}
    reasons = bank.left_out().set_index("clip").reason.to_dict()
    assert set(reasons) == {f"_background_noise_/{number}.wav" for number in range(3)}
    assert set(reasons.values()) == {"folder _background_noise_: a name that begins with _ is no label"}


def wav(rate: int | None = None, container: str = "WAV") -> bytes:
    """A recording; rate: what its header tells, whether or not that can be."""
    file = io.BytesIO()
    soundfile.write(file, next(layouts.speech(1.6)), 16_000, format=container)
    content = bytearray(file.getvalue())
    if rate is not None:
        content[24:28] = rate.to_bytes(4, "little")
    return bytes(content)


def packet_of_nothing() -> bytes:
    """A film without sound, as FFmpeg opens it."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 16
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


ODD = {  # contents by name, and the beginning of the reason; "" where the file is a recording like others
    b"headerless.raw": (bytes(range(256)) * 8, "unreadable: has no header that tells its sampling rate"),
    b"none.wav": (wav(0), "unreadable: "),
    b"one.wav": (wav(1), "unreadable: its header tells a sampling rate of 1 Hz"),
    b"absurd.wav": (wav(2**31 - 1), "unreadable: its header tells a sampling rate of 2,147,483,647 Hz"),
    b"film.mp4": (packet_of_nothing(), "unreadable: "),
    b"empty.raw": (b"", "empty"),
    b"empty.g722": (b"", "too short"),
    b"list.m3u8": (b"#EXTM3U\nclean.wav\n", "unreadable: "),
    b"text.wav": (b"RIFF and no more", "unreadable: "),
    b"\xff\xfe.wav": (b"no sound", "unreadable: "),
    b"\xe9t\xe9.flac": (wav(container="FLAC"), ""),
    b"new\nline.ogg": (wav(container="OGG"), ""),
}


def test_no_odd_file_ends_the_opening_of_a_folder(tmp_path):
    labelled(tmp_path, "yes", "no")
    for name, (content, _) in ODD.items():
        Path(os.fsdecode(os.fsencode(tmp_path / "yes") + b"/" + name)).write_bytes(content)
    bank = opened(tmp_path)
    reasons = bank.left_out().set_index("clip").reason.to_dict()
    clean = {name.decode(errors="replace").replace("\n", "\ufffd"): reason for name, (_, reason) in ODD.items()}
    assert set(reasons) - {f"yes/{name}" for name in clean} == set()
    for name, reason in clean.items():
        if not reason:  # the same speech, which is used once
            reason = "duplicate of " if f"yes/{name}" in reasons else ""
        if reason:
            assert reasons[f"yes/{name}"].startswith(reason), (name, reasons[f"yes/{name}"])
    assert "\ufffdt\ufffd.flac" in "".join([*bank.clips["clip"], *reasons])


def test_a_folder_whose_own_name_is_no_text_is_one_line(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    labelled(tmp_path / "a", "yes", "no")
    (tmp_path / "a").rename(folder)
    with pytest.raises(UserError, match="rename the folder") as caught:
        corpora.card(str(folder))
    assert str(caught.value).isprintable()


def decomposed(name: str) -> str:
    """As a Mac has it in an archive: each accent a letter of its own."""
    return unicodedata.normalize("NFD", name)


def test_both_sides_of_a_pair_are_found_however_their_accents_are_written(tmp_path):
    rows = ["file,speaker"]
    for number, clean in zip(range(6), layouts.speech(), strict=False):
        name = f"Zoë/é{number}.wav"
        sides = (name, decomposed(name))[:: (1, -1)[number % 2]]
        for side, file in zip(("clean", "noisy"), sides, strict=True):
            write(tmp_path / side / file, layouts.noisy(clean, number) if side == "noisy" else clean)
        rows.append(f"{decomposed(f'é{number}')},{(str, decomposed)[number % 2]('Ån')}{number // 2}")
    bank = opened(tmp_path)
    assert bank.left_out().empty, bank.left_out()
    assert set(bank.clips["clip"]) == {f"Zoë/é{number}" for number in range(6)}
    assert set(bank.clips.voice) == {"Zoë"}
    (tmp_path / "speakers.csv").write_text("\n".join(rows))
    bank = opened(tmp_path)
    assert set(bank.clips.voice) == {"Ån0", "Ån1", "Ån2"}
    assert bank.remarks() == []


def test_a_label_whose_accents_are_written_in_two_ways_is_one(tmp_path):
    labelled(tmp_path, "été", "no")
    layouts.speech_and_noise(tmp_path / decomposed("été"))
    bank = opened(tmp_path)
    assert set(bank.clips.label) == {"été", "no"}
    (tmp_path / "no").rename(tmp_path / "_no")
    with pytest.raises(UserError, match="holds no recordings laid out"):
        opened(tmp_path)


def test_a_folder_whose_name_is_as_long_as_can_be_is_opened_and_others_that_begin_so_are_others(tmp_path):
    banks = []
    for end in "ab":
        folder = tmp_path / ("é" * 120 + "x" * 14 + end)
        layouts.speech_and_noise(folder)
        assert len(os.fsencode(folder.name)) == 255
        banks += [opened(folder), open_bank(corpora.card(str(folder)).noise_beside, say=[].append)]
    assert len({bank.folder for bank in banks}) == 4
    assert all(bank.folder.name.startswith("é" * 50 + "-") for bank in banks)
    assert opened(tmp_path / banks[0].card.name).folder == banks[0].folder


def test_what_is_said_of_a_folder_whose_name_has_lines_is_a_line_each(tmp_path):
    labelled(tmp_path / "my\nown", "yes", "no")
    said: list[str] = []
    bank = opened(tmp_path / "my\nown", said)
    assert bank.card.name == "my\ufffdown"
    assert said[0] == "my\ufffdown: decoding to 16 kHz"
    assert all(line.isprintable() for line in [*said, bank.card.title, bank.folder.name])


@pytest.mark.parametrize(
    "kind", [RuntimeError, TypeError, AttributeError, AssertionError, OverflowError, StopIteration]
)
def test_whatever_a_decoder_raises_is_a_reason(kind, tmp_path, monkeypatch):
    labelled(tmp_path, "yes", "no")
    (tmp_path / "yes" / "odd.wav").write_bytes(wav())

    def decode(path, take):
        if path.name == "odd.wav":
            raise kind("of its \n own")
        return audio.decode(path, take)

    monkeypatch.setattr(build, "decode", decode)
    (row,) = opened(tmp_path).left_out().itertuples()
    assert (row.clip, row.reason) == ("yes/odd.wav", f"unreadable: {kind.__name__}: of its own")


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_what_is_no_fault_of_a_file_ends_the_opening(error, tmp_path, monkeypatch):
    labelled(tmp_path, "yes", "no")

    def decode(path, take):
        raise error

    monkeypatch.setattr(build, "decode", decode)
    with pytest.raises(type(error)) as caught:
        opened(tmp_path)
    assert caught.value is error


damaged = st.tuples(
    st.sampled_from(["WAV", "FLAC", "OGG", "AIFF", "W64", "CAF", "AU"]),
    st.integers(0, 80),  # where: headers are more telling than samples
    st.binary(min_size=1, max_size=12),
    st.floats(0, 1),
    st.sampled_from([".wav", ".raw", ".G722", ".mp3", ".mkv", ".m3u8", ".xyz", ""]),
)


@settings(max_examples=12)
@given(files=st.lists(damaged, min_size=4, max_size=12))
def test_a_folder_with_damaged_files_opens_and_tells_of_each(files, tmp_path_factory):
    root = tmp_path_factory.mktemp("fuzz")
    labelled(root, "yes", "no")
    for number, (container, where, junk, keep, suffix) in enumerate(files):
        content = bytearray(wav(container=container))
        content[where : where + len(junk)] = junk
        (root / "yes" / f"damaged{number}{suffix}").write_bytes(content[: int(keep * len(content))])
    bank = opened(root)
    told = {*bank.clips["clip"].str.partition("#")[0], *bank.left_out()["clip"]}
    assert {f"yes/damaged{number}{suffix}" for number, (*_, suffix) in enumerate(files)} <= told
    assert all(reason.isprintable() for reason in bank.left_out().reason)


HEALTHY = {  # of each layout: what is not for training, in results that are published
    "pairs": {"s0/0.wav": "test", "s2/6.wav": "validation"},
    "speech_and_noise": {"1.flac": "test", "5.flac": "validation"},
    "labelled": {"left/2.wav": "test", "left/5.wav": "validation"},
}


@pytest.mark.parametrize("name", HEALTHY)
def test_the_splits_of_a_whole_folder_stay_what_they_are(name, tmp_path):
    layouts.OWN[name](tmp_path)
    split = opened(tmp_path).clips.set_index("name").split
    for clip, expected in HEALTHY[name].items():
        assert split[clip.removesuffix(".wav") if name == "pairs" else clip] == expected
    assert (split != "train").sum() == {"pairs": 6, "speech_and_noise": 2, "labelled": 4}[name]


def few(kind: str, root: Path) -> Path:
    """Four recordings, of which one alone is for the test and one for validation; the folder in which they lie."""
    if kind == "labels":
        labelled(root, "yes", "no", each=4)
        return root / "yes"
    for number, clean in zip(range(4), layouts.speech(1.6), strict=False):
        write(root / "clean" / f"{number}.wav", clean)
        if kind == "pairs":
            write(root / "noisy" / f"{number}.wav", layouts.noisy(clean, number))
    return root / ("noisy" if kind == "pairs" else "clean")


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("kind", ["pairs", "speech", "labels"])
def test_one_bad_file_of_four_leaves_recordings_for_every_split(kind, split, tmp_path):
    files = few(kind, tmp_path)
    before = opened(tmp_path).clips.set_index("name").split
    own = before[before.index.str.startswith("yes/")] if kind == "labels" else before
    (bad,) = own.index[own == split]
    (files / f"{Path(bad).stem}.wav").write_bytes(b"no sound")
    bank = opened(tmp_path)
    assert list(bank.left_out()["clip"]) == [bad]
    after = bank.clips.set_index("name").split
    assert set(after[after.index.isin(own.index)]) == {"train", "validation", "test"}
    assert set(bank.regions) == {"train", "validation", "test"}
    others = before[~before.index.isin(own.index)]  # the other label stays as it was
    assert after[others.index].equals(others)


def test_one_bad_file_of_many_moves_no_other(tmp_path):
    layouts.speech_and_noise(tmp_path)
    before = opened(tmp_path).clips.set_index("name").split
    (tmp_path / "speech" / "7.flac").write_bytes(b"no sound")
    after = opened(tmp_path).clips.set_index("name").split
    assert after.equals(before[after.index])
    assert len(after) == len(before) - 1


def test_a_label_with_too_few_left_is_left_out_with_its_reason(tmp_path):
    labelled(tmp_path, "yes", "no", "maybe")
    (tmp_path / "maybe" / "1.wav").write_bytes(b"no sound")
    bank = opened(tmp_path)
    assert set(bank.clips.label) == {"yes", "no"}
    reasons = bank.left_out().set_index("clip").reason
    assert reasons["maybe/1.wav"].startswith("unreadable")
    assert reasons["maybe/0.wav"] == "its label 'maybe' has fewer than 3 recordings that can be used"


@pytest.mark.parametrize(
    ("bad", "message"), [(2, "2 of 4 recordings can be used, which is too few"), (4, "no usable rec")]
)
def test_where_too_few_can_be_used_the_check_lists_every_one_first(bad, message, tmp_path):
    few("speech", tmp_path / "mine")
    for number in range(bad):
        (tmp_path / "mine" / "clean" / f"{number}.wav").write_bytes(b"no sound")
    done = here("data", "check", str(tmp_path / "mine"), home=tmp_path / "home")
    assert done.returncode == 2
    for number in range(bad):
        assert f"  left out: {number}.wav: unreadable: " in done.stdout
    assert message in " ".join(done.stderr.split())
    assert f"the first of {bad}: 0.wav: unreadable" in " ".join(done.stderr.split())
    assert "harness data check" in done.stderr


def reasons_of(root: Path) -> dict[str, str]:
    return opened(root).left_out().set_index("clip").reason.to_dict()


def test_whatever_lies_beside_the_recordings_is_listed_with_its_reason(tmp_path):
    root = tmp_path / "mine"
    layouts.pairs(root)
    sound, more = wav(), layouts.speech(2.2)
    for name in (
        "clean/s1/4.flac",  # beside 4.wav
        "clean/s1/x_fileid_7.wav",
        "clean/s2/y_fileid_7.wav",
        "stray.wav",
        "others/deep/er.mp3",
        "others/more.wav",
        "clean/.old.wav",
        ".git/object",
        "clean/._4.wav",
        "clean/.DS_Store",
        "LICENSE",
        "notes.txt",
        "speakers/list.csv",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(sound)
    write(root / "noisy" / "s1" / "z_fileid_7.wav", next(layouts.speech(1.6)) + 0.01)
    (root / "clean" / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (root / "clean" / "round").symlink_to(root)
    os.mkfifo(root / "noisy" / "pipe.wav")
    clean = next(more)
    write(root / "clean" / "mute.wav", clean)
    write(root / "noisy" / "mute.wav", np.zeros(len(clean)))
    beside = "in none of the folders that are read: clean/, noisy/"
    again = "has the name, or the fileid, of another recording"
    assert reasons_of(root) == {
        "clean/s1/4.wav": again,
        "clean/s2/y_fileid_7.wav": again,
        "stray.wav": beside,
        "others/": f"2 of its files: {beside}",
        "clean/.old.wav": "hidden: its path has a name that begins with a dot",
        "clean/gone.wav": "a link that leads nowhere",
        "clean/round": "a link to a folder that is read already",
        "noisy/pipe.wav": "neither a file nor a folder",
        "mute": "noisy: silent (-inf dBFS)",
    }


def test_every_side_of_a_folder_may_be_a_link_and_what_lies_behind_is_read_when_it_changes(tmp_path):
    layouts.speech_and_noise(tmp_path / "real")
    labelled(tmp_path / "far", "a", "b")
    mine, words = tmp_path / "mine", tmp_path / "words"
    mine.mkdir()
    words.mkdir()
    for side in ("speech", "noise"):
        (mine / side).symlink_to(tmp_path / "real" / side)
    for label in ("a", "b"):
        (words / label).symlink_to(tmp_path / "far" / label)
        (tmp_path / "far" / label / "back").symlink_to(words)  # around in a circle
    (tmp_path / "far" / "a" / "deep").symlink_to(tmp_path / "deep")
    (tmp_path / "deep").mkdir()
    for folder, behind in ((mine, tmp_path / "real" / "speech"), (words, tmp_path / "deep")):
        before = opened(folder)
        write(behind / "more.wav", next(layouts.speech(1.9)))
        after = opened(folder)
        assert len(after.clips) == len(before.clips) + 1
        said = reasons_of(folder)
        assert said == dict.fromkeys(said, "a link to a folder that is read already")
        assert set(said) == ({"a/back", "b/back"} if folder == words else set())


def test_a_folder_within_it_may_be_the_one_that_a_side_is_linked_to(tmp_path):
    layouts.pairs(tmp_path / "pool")
    for side in ("clean", "noisy"):
        (tmp_path / side).symlink_to(tmp_path / "pool" / side)
    assert reasons_of(tmp_path) == {}
    assert len(opened(tmp_path).clips) == 12


def test_a_folder_that_cannot_be_opened_is_listed(tmp_path, monkeypatch):
    layouts.speech_and_noise(tmp_path)
    (tmp_path / "speech" / "secret").mkdir()
    scan = os.scandir

    def refused(path):
        if Path(path).name == "secret":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert reasons_of(tmp_path) == {"speech/secret": "cannot be opened: Permission denied"}


BESIDE = (
    "notes.txt",
    "speech/READ ME.md",
    ".DS_Store",
    "speech/.DS_Store",
    "speech/lists/speakers.csv",
    ".git/objects/1",
)
COUNTS = ("speakers.csv", "speech/9.wav", "speech/.old.wav", "stray.mp3", "speech/odd")


def test_what_lies_beside_the_recordings_and_is_none_makes_no_other_bank(tmp_path):
    layouts.speech_and_noise(tmp_path)
    said: list[str] = []
    before = opened(tmp_path, said)
    for name in BESIDE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("file,speaker\n")
        assert opened(tmp_path, said).folder == before.folder, name
    (tmp_path / "empty").mkdir()
    assert opened(tmp_path, said).folder == before.folder
    assert [line.endswith("decoding to 16 kHz") for line in said].count(True) == 1
    assert reasons_of(tmp_path) == {}


def test_whatever_changes_what_is_read_makes_another_bank_and_tells_which_are_older(tmp_path):
    layouts.speech_and_noise(tmp_path)
    made = [opened(tmp_path).folder]
    for name in COUNTS:
        (tmp_path / name).write_text("file,speaker\n")
        said: list[str] = []
        made.append(opened(tmp_path, said).folder)
        older = ", ".join(sorted(folder.name for folder in made[:-1]))
        assert f"may be deleted: {older} in {made[0].parent}" in " ".join(said), name
    (tmp_path / "speech" / "gone").symlink_to(tmp_path / "nowhere")
    made.append(opened(tmp_path).folder)
    os.utime(tmp_path / "speech" / "3.flac", (1, 1))
    made.append(opened(tmp_path).folder)
    assert len(set(made)) == len(COUNTS) + 3
    layouts.speech_and_noise(tmp_path / "another" / tmp_path.name)
    said = []
    opened(tmp_path / "another" / tmp_path.name, said)
    assert not any("may be deleted" in line for line in said)


def test_a_table_whose_rows_name_no_file_or_few_speakers_is_told_at_every_opening(tmp_path):
    for number, clean in zip(range(6), layouts.speech(1.6), strict=False):
        write(tmp_path / "speech" / f"{number}.wav", clean)
    rows = [f"speech\\{number},{who}" for number, who in enumerate("aabb")]
    (tmp_path / "speakers.csv").write_text("\n".join(["file,speaker", *rows, "gone.wav,c", "lost.wav,d"]))
    expected = [
        "2 rows name no recording in speakers.csv, the first in line 6",
        "only 2 speakers are named: the test shares them with training",
    ]
    for _ in range(2):
        said: list[str] = []
        bank = opened(tmp_path, said)
        assert bank.remarks() == expected
        assert said[-2:] == [f"{tmp_path.name}: {remark}" for remark in expected]
    assert set(bank.clips.voice) == {"a", "b", "unknown"}
    (tmp_path / "speech" / "3.wav").write_bytes(b"no sound")
    (tmp_path / "speech" / "2.wav").write_bytes(b"no sound")
    assert "only 1 speaker is named: the test shares him with training" in opened(tmp_path).remarks()


def versions(root: Path, cleans: int, each: int, name: str) -> None:
    """Pairs of some clean recordings in several noises each; name: of a pair, by its clean one and the noise."""
    for number, clean in zip(range(cleans), layouts.speech(1.6), strict=False):
        for noise in range(each):
            file = name.format(clean=number, noise=noise)
            write(root / "clean" / file, clean)
            write(root / "noisy" / file, layouts.noisy(clean, noise))


@pytest.mark.parametrize(
    ("name", "voices", "said"),
    [
        (
            "{clean}_snr{noise}.wav",
            {"unknown"},
            "nobody is named who speaks: the test may share speakers with training",
        ),
        (
            "snr{noise}/{clean}.wav",
            {f"snr{noise}" for noise in range(4)},
            "4 speakers are held for 1: the same clean speech is of several",
        ),
        ("s{clean}/{noise}.wav", {f"s{clean}" for clean in range(12)}, ""),
    ],
)
def test_a_clean_recording_in_several_noises_is_in_one_split_and_none_is_left_out(name, voices, said, tmp_path):
    versions(tmp_path, 12, 4, name)
    bank = opened(tmp_path)
    assert bank.left_out().empty
    assert len(bank.clips) == 48
    assert len(set(bank.clips.name)) == 12
    assert bank.clips.groupby("name").split.nunique().max() == 1
    assert set(bank.clips.split) == {"train", "validation", "test"}
    assert set(bank.clips.voice) == voices
    assert bank.remarks()[:1] == ([said] if said else [])


def test_two_clean_recordings_are_too_few_however_many_noises_they_are_in(tmp_path):
    versions(tmp_path, 2, 4, "{clean}_snr{noise}.wav")
    with pytest.raises(
        UserError, match="8 recordings with the clean speech of 2 are too few: training, validation and"
    ):
        opened(tmp_path)


def test_files_alike_are_those_of_the_same_bytes(tmp_path):
    contents = {"a": b"x" * 9000, "b": b"x" * 9000, "c": b"y" + b"x" * 8999, "d": b"x", "e": b"", "f": b"", "g": b"z"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    found = alike([*(tmp_path / name for name in contents), tmp_path / "gone"])
    assert {one.name: first.name for one, first in found.items()} == {"a": "a", "b": "a", "e": "e", "f": "e"}


@pytest.mark.parametrize("kind", ["pairs", "speech", "labels"])
def test_blanks_and_capitals_in_names_are_names(kind, tmp_path):
    root = tmp_path / "My Recordings + More (1)"
    endings, made = ("WAV", "Flac", "MP3", "OGG", "G722", "WAV"), layouts.speech(1.6)
    prompts = sorted((prompts_folder() / "en_US_f_Allison").glob("*.g722"), key=lambda file: file.stat().st_size)
    tops = {"pairs": ("clean", "noisy"), "speech": ("speech",), "labels": ("Left Turn", "Right, turn")}[kind]
    for number, ending in enumerate(endings):
        clean = next(made)
        for side, top in enumerate(tops):
            file = root / top / f"Ann Other {number % 3}" / f"Take {number} .{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            if ending == "G722":
                file.write_bytes(prompts[-1 - side].read_bytes()[:16_000])
            else:
                soundfile.write(file, clean * (1 - 0.1 * side), 16_000, format=ending.upper())
            (root / top / "READ ME.TXT").write_text("no recording")
    (root / "speakers.csv").write_text("file,speaker\nTake 0 .WAV,Eve Smith\nTake 3 .OGG,Eve Smith\n")
    bank = opened(root)
    assert bank.left_out().empty, bank.left_out()
    assert bank.card.name == root.name
    assert set(bank.clips.voice) == {"Eve Smith", "Ann Other 1", "Ann Other 2"}
    assert len(bank.clips) == len(endings) * (2 if kind == "labels" else 1)
    assert opened(root).folder == bank.folder
    done = here("data", "check", str(root), home=tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
