"""Corpus cards: what a corpus is, where it comes from, how it is split. One YAML file a corpus in `datasets/`."""

from __future__ import annotations

import functools
import hashlib
import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from harness import paths
from harness.data import folders, layouts
from harness.errors import UserError, unknown

Split = Literal["train", "validation", "test"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Contents(_Strict):
    """What one folder of the corpus must hold; `sha256` is over the sorted lines `<path> <sha256 of the file>`."""

    files: int
    bytes: int
    sha256: str


class LeaveOut(_Strict):
    """Recordings that do not enter the bank: whole folders, names, shorter than seconds, quieter than dBFS."""

    folders: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    shorter_than: float = 0.0
    quieter_than: float = -200.0


class SplitRule(_Strict):
    """`by: name` hashes the recording's name (SHA-1) into parts, `by: voice` the voice's without its number, for `iven` and
    `iven2` are nearly one voice; `by: list` names the recordings, or the voices, of each split. The voices `held_out` give
    the mismatched test only."""

    by: Literal["name", "voice", "list"]
    train: int = 8
    validation: int = 1
    test: int = 1
    lists: dict[Split, tuple[str, ...]] = {}
    held_out: tuple[str, ...] = ()

    def of(self, name: str, voice: str) -> str:
        """The split of a recording: train, validation, test, mismatched, or unused (a held-out voice's other names)."""
        if self.by == "list":
            return next((split for split, names in self.lists.items() if name in names or voice in names), "unused")
        key = name if self.by == "name" else re.sub(r"(?<=[A-Za-z]{2})\d+$", "", voice)
        place = int(hashlib.sha1(key.encode()).hexdigest(), 16) % (self.train + self.validation + self.test)
        split = "train" if place < self.train else "validation" if place < self.train + self.validation else "test"
        if voice in self.held_out:
            return "mismatched" if split == "test" else "unused"
        return split


class Reading(_Strict):
    """How a synthesiser says a word. rate: words a minute; pitch: 0 to 99, of the voice's own range."""

    language: str
    rate: int
    pitch: int


class Archive(_Strict):
    """A file to download and unpack. sha256: where its publisher, or those who fetch it, tell one; bytes: about; folder: that it is
    unpacked into, where it brings none of its own to lie beside another archive's files."""

    url: str
    bytes: int
    sha256: str | None = None
    folder: str = ""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


class Card(_Strict):
    """One corpus. Recorded corpora have a `layout` and a split rule; made noises have a `maker` and the minutes of each
    split's track; made words have the `words` to train on, the `unknown` ones of open-set tests, the `readings` of each, and
    the voices that are no imitation of people (`novelty`).

    Kinds: speech to be mixed; pairs of clean and noisy speech; words of a synthesiser; recordings with labels; noise; rooms, so
    many of each split, whose walls absorb a share of the power between two bounds.
    Public corpora are fetched only when they are named, from `archives`; of some, `words` are the labels that are told apart
    (others are unknown) and `folds` how many parts take turns. home: the folder that a corpus shares with another one's; place:
    files that must lie in it, for people; expected: how many recordings were published of a split, of a folder, or of all
    (`recordings`); notice: said when it is first opened; seconds: what an item of it takes; gate: metrics that its unprocessed test
    must have, with their tolerance; root: where the recordings of a folder of one's own lie, and own_noise whether noise lies
    beside them.
    """

    name: str
    title: str
    kind: Literal["speech", "pairs", "words", "labels", "noise", "rooms"]
    version: str
    synthetic: bool
    licence: str
    attribution: str = ""
    hours: float | None = None
    bytes: int | None = None
    sample_rate: int = 16_000
    layout: str | None = None  # a function of harness.data.layouts
    flaws: tuple[str, ...] = ()
    upstream: dict[str, str] = {}
    packages: dict[str, str] = {}
    package_folder: str = ""
    contents: dict[str, Contents] = {}
    leave_out: LeaveOut = LeaveOut()
    split: SplitRule | None = None
    maker: Literal["shaped", "babble", "espeak", "image_sources"] | None = None
    shape: Literal["speech", "coloured"] | None = None
    talkers: int = 0
    minutes: dict[Split, int] = {}
    rooms: dict[Split, int] = {}
    absorption: tuple[float, float] = (0.0, 0.0)
    words: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = ()
    novelty: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    home: str = ""
    place: str = ""
    expected: dict[str, int] = {}
    notice: str = ""
    folds: int = 0
    seconds: float | None = None
    gate: dict[str, tuple[float, float]] = {}
    root: Path | None = None
    own_noise: bool = False

    @property
    def noise_beside(self) -> Card:
        """The card of the noise that lies beside the speech of a folder of one's own."""
        assert self.root is not None
        about = {
            "name": f"{self.name}_noise",
            "kind": "noise",
            "layout": "noise",
            "root": self.root / "noise",
            "own_noise": False,
        }
        return self.model_copy(update=about)

    @property
    def recorded(self) -> bool:
        """Whether the corpus is recordings on disk (and not made from numbers or from another corpus)."""
        return self.layout is not None

    @property
    def folder(self) -> str:
        """Name of the folder that its recordings are fetched into."""
        return self.home or self.name

    @property
    def public(self) -> bool:
        """Whether it is had from its publisher, and only when it is named."""
        return bool(self.archives)

    def talker(self, voice: str) -> str:
        """Who speaks in a folder of recordings: in `es_MX_f_Allison` and `en_US_f_Allison` the same person."""
        return voice.rpartition("_")[2] if self.layout == "voice_folders" else voice

    def digest(self) -> str:
        """Hash of all that the card says of the bank's contents."""
        made, decoded = {"maker", "shape", "talkers", "minutes"}, {"layout", "contents", "leave_out", "split"}
        spoken = {"maker", "words", "unknown", "readings", "novelty", "leave_out", "split"}
        told, built = {"layout", "leave_out", "split", "words"}, {"maker", "rooms", "absorption"}
        own = {"words": spoken, "rooms": built}.get(self.kind, made)
        said = told if self.public else decoded if self.recorded else own
        text = self.model_dump_json(include={"name", "version"} | said)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def names(kind: str | None = None) -> list[str]:
    """Names of all cards, or of those of one kind ("speech", "words" or "noise")."""
    return [path.stem for path in sorted(paths.CARDS.glob("*.yaml")) if kind is None or card(path.stem).kind == kind]


def parts(text: str) -> list[str]:
    """The corpora of `librispeech + demand`: what is learned from, and the noises that are mixed in. A folder's path may have a
    plus."""
    return [text] if "+" not in text or paths.is_folder(Path(text)) else [part.strip() for part in text.split("+")]


def card(name: str) -> Card:
    """The card of a corpus, or of a folder of recordings of one's own, given by its path. Raises UserError for an unknown name,
    a faulty card, or a folder that is laid out in no way that can be read."""
    path = paths.CARDS / f"{name}.yaml"
    if Path(name).name == name and paths.is_file(path):
        try:
            return Card(**yaml.safe_load(path.read_text()))
        except (ValidationError, yaml.YAMLError, TypeError) as error:
            raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    if name and paths.is_folder(Path(name)):
        if re.search("[\ud800-\udfff]", str(Path(name).resolve())):  # it is written into runs, and printed
            raise UserError(f"corpus {name!r}: its path holds bytes that are no text in UTF-8: rename the folder")
        _refuse_published(Path(name))
        return Card(**folders.described(Path(name)))
    if "/" in name:
        raise UserError(
            f"unknown corpus {name!r}: no such folder. A folder of recordings holds {folders.WAYS}; a corpus has a name, such as "
            "prompts. See all with: harness data list"
        )
    raise unknown("corpus", name, [p.stem for p in paths.CARDS.glob("*.yaml")], "harness data list")


def _refuse_published(folder: Path) -> None:
    """UserError where a folder, or one in it, is a public corpus: read as a folder of one's own it would lose its official splits,
    or have them for labels or speakers. Noise may be a public corpus's: only it is mixed in."""
    inside = folders.within_it(folder)
    below = inside & folders.SPOKEN if folders.sides(folder) else inside
    for place in (folder, *(folder / part for part in sorted(below))):
        if found := _published(place):
            others = f" (or {', '.join(found[1:])})" if found[1:] else ""
            raise UserError(
                f"corpus {str(folder)!r}: laid out as {found[0]}: use CORPUS={found[0]}{others} "
                f"DATA_DIR={shlex.quote(str(place))}"
            )


def _published(folder: Path) -> list[str]:
    """The public corpora that lie in a folder: by their marks, and by recordings that their reader knows the split of."""
    found = []
    for known in _public(paths.CARDS):
        if not all(any(folder.glob(mark)) for mark in layouts.MARKS[known.layout or ""]):
            continue
        with suppress(OSError, ValueError, KeyError):  # it only looks like one
            recordings = layouts.PUBLISHED[known.layout or ""](folder, known)
            found += [known.name] if any(recording.split != "unused" for recording in recordings) else []
    return found


@functools.cache
def _public(cards: Path) -> tuple[Card, ...]:
    return tuple(known for path in sorted(cards.glob("*.yaml")) if (known := card(path.stem)).public)


def speech(name: str, what: str) -> Card:
    """The card of a corpus of speech; UserError, with those that there are, for another kind. what: who needs it, "voices"."""
    found = card(name)
    if found.kind != "speech":
        raise UserError(f"corpus {name!r} is {found.kind}; {what} needs speech, one of: {', '.join(names('speech'))}")
    return found
