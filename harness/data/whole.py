"""Whether a public corpus is all there: scores on a part of it, or on more, are not those that others publish."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from harness.data.bank import Bank, open_bank
from harness.data.corpora import Card
from harness.data.progress import Progress, unseen

ALL = "recordings"  # of a card's `expected`: every recording of the corpus
SPLITS = ("train", "validation", "test")


def open_whole(
    card: Card,
    data_dir: Path | None = None,
    say: Callable[[str], None] = print,
    progress: Progress = unseen,
) -> Bank:
    """A corpus's bank; `say` is told where it has not as many recordings as were published."""
    bank = open_bank(card, data_dir, say, progress)
    if line := caution(bank, data_dir):
        say(line)
    return bank


def check_command(card: Card, data_dir: Path | None) -> str:
    """The command that lists what is left out of a corpus. data_dir: where it was taken from, of one that has a name."""
    if card.root is not None:  # noise beside the speech of a folder of one's own has no name of its own
        return f"harness data check {shlex.quote(str(card.root.parent if card.kind == 'noise' else card.root))}"
    return f"harness data check {card.name}" + (f" --data-dir {shlex.quote(str(data_dir))}" if data_dir else "")


def caution(bank: Bank, data_dir: Path | None = None) -> str:
    """What a corpus has less or more of than was published, in one line; "" where it is whole, or nobody knows."""
    have, of = counts(bank), bank.card.expected
    what = "pairs" if bank.card.kind == "pairs" else "recordings"
    # A folder that is not there was left away on purpose; a split that is not there is refused before.
    differ = [part for part in of if have[part] != of[part] and (have[part] or part in SPLITS)]
    if not differ:
        return ""
    said = [
        f"{'' if part == ALL else f'{part} '}has {have[part]:,} of {of[part]:,} {what}"
        if have[part] < of[part]
        else f"{'' if part == ALL else f'{part} '}has {have[part]:,} {what}, where {of[part]:,} were published"
        for part in differ
    ]
    unused = len(bank.left_out())
    why = f"{check_command(bank.card, data_dir)} tells why"
    beside = f" ({unused:,} that lie there are left out: {why})" if unused else ""
    return f"caution: {bank.card.name}: {'; '.join(said)}{beside}: no score on it can be compared with published ones"


def counts(bank: Bank) -> dict[str, int]:
    """How many recordings each part has that a card's `expected` names: a split, a folder, or all. Those that were cut into
    pieces count once; seconds of background noise are no recordings of words."""
    clips = bank.clips.assign(recording=bank.clips["clip"].str.replace(r"#\d+$", "", regex=True))
    clips = clips[~clips.recording.str.startswith("_background_noise_/")].drop_duplicates("recording")
    folder = clips.recording.str.partition("/")[0]
    return {
        part: len(clips) if part == ALL else int(((clips.split if part in SPLITS else folder) == part).sum())
        for part in bank.card.expected
    }
