"""Recordings: list the corpora, fetch them, check what is on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from harness.commands import terminal
from harness.commands.options import DataDir
from harness.errors import UserError

app = typer.Typer(help="Recordings: list the corpora, fetch them, check what is on disk.", no_args_is_help=True)


@app.command("list")
def data_list() -> None:
    """List the corpora with their licences."""
    from harness.data import corpora

    table = Table("corpus", "kind", "what", "hours", "synthetic", "licence")
    for name in corpora.names():
        card = corpora.card(name)
        table.add_row(
            name,
            card.kind,
            card.title,
            "" if card.hours is None else f"{card.hours:.1f}",
            "yes" if card.synthetic else "no",
            card.licence,
        )
    terminal.console.print(table)


def _recorded(names: list[str] | None) -> list[Any]:
    """Cards of recordings, in the order of their names, those of `speech + noise` one after the other."""
    from harness.data import corpora

    if names:
        cards = [corpora.card(part) for name in names for part in corpora.parts(name)]
        cards += [card.noise_beside for card in cards if card.own_noise]
    else:
        cards = [card for name in corpora.names() if not (card := corpora.card(name)).public]
    return [card for card in cards if card.recorded]


def _within(data_dir: Path | None, card: Any, names: list[str] | None) -> Path | None:
    """The user's folder for a corpus. The noise of `speech + noise` need not lie there, as in a study."""
    from harness.data import archives, corpora

    noises = [part for name in names or () for part in corpora.parts(name)[1:]]
    if data_dir is None or card.name not in noises or not card.public or archives.beginning(card, data_dir):
        return data_dir
    return None


Corpora = Annotated[
    list[str] | None,
    typer.Argument(
        help="Corpora ('librispeech + demand': both), or folders of your own; without any, all that come with the harness.",
        show_default=False,
    ),
]


@app.command("fetch")
def data_fetch(names: Corpora = None, data_dir: DataDir = None) -> None:
    """Fetch and decode recordings that are not there yet, and make the words of synthetic speech."""
    from harness.bars import DataBar
    from harness.data import corpora
    from harness.data.whole import check_command, open_whole
    from harness.data.words import open_words

    for card in _recorded(names):
        here = _within(data_dir, card, names)
        with DataBar(terminal.console) as bar:
            bank = open_whole(card, here, terminal.say, bar)
        hours = bank.clips["samples"].sum() / 16_000 / 3600
        terminal.say(f"{card.name}: {len(bank.clips)} clips, {hours:.2f} h in {bank.folder}")
        reasons = check_command(card, here)
        terminal.say(f"{card.name}: {len(bank.left_out())} recordings left out; their reasons: {reasons}")
    for name in [] if names else corpora.names("words"):
        with DataBar(terminal.console) as bar:
            bank = open_words(corpora.card(name), terminal.say, bar).bank
        terminal.say(f"{name}: {len(bank.clips)} words, made by a synthesiser, in {bank.folder}")


@app.command("check")
def data_check(names: Corpora = None, data_dir: DataDir = None) -> None:
    """Check recordings against their cards, and list what is left out and why. Exits with 1 where something is wrong."""
    from harness import paths
    from harness.bars import DataBar
    from harness.data.fetch import faults

    wrong = 0
    for card in _recorded(names):
        here = _within(data_dir, card, names)
        root = here or paths.AUDIO / card.name
        found = faults(card, root)
        wrong += len(found)
        for fault in found:
            terminal.console.print(f"{card.name}: {fault}", style="red", markup=False)
        if found:
            continue
        with DataBar(terminal.console) as bar:
            bank = _listing_all(card, here, bar)
        counts = bank.clips.groupby("split")["samples"].agg(["size", "sum"])
        shares = ", ".join(
            f"{split} {row['size']} clips {row['sum'] / 960_000:.1f} min" for split, row in counts.iterrows()
        )
        terminal.say(f"{card.name}: {'contents as the card says; ' if card.contents else ''}{shares}")
        left_out, notes = bank.left_out(), bank.notes() if not card.contents else None
        for row in left_out.itertuples():
            terminal.line(f"  left out: {row.clip}: {row.reason}")
        for row in notes.itertuples() if notes is not None else ():
            terminal.line(f"  kept, but: {row.clip}: {row.reason}")
        wrong += 0 if card.contents else len(left_out)
    if wrong:
        raise typer.Exit(1)


def _listing_all(card: Any, data_dir: Any, bar: Any) -> Any:
    """The bank of a corpus. Where too few recordings can be used for one, each is listed before the error is."""
    from harness.data.recordings import Unusable
    from harness.data.whole import open_whole

    try:
        return open_whole(card, data_dir, terminal.say, bar)
    except Unusable as error:
        for clip, reason in error.left_out:
            terminal.line(f"  left out: {clip}: {reason}")
        raise


@app.command("gate")
def data_gate(
    name: Annotated[str, typer.Argument(help="A corpus whose card has a gate.")] = "voicebank_demand",
    data_dir: DataDir = None,
) -> None:
    """Measure the unprocessed test set and compare with what is published of it. Exits with 1 where it differs."""
    from harness import gate, workers
    from harness.bars import DataBar
    from harness.data import corpora
    from harness.data.whole import open_whole
    from harness.metrics import Scorer

    card = corpora.card(name)
    if not card.gate:
        raise UserError(f"corpus {name!r} has no gate; try voicebank_demand")
    with DataBar(terminal.console) as bar:
        bank = open_whole(card, data_dir, terminal.say, bar)
    with terminal.console.status("measuring the unprocessed test set"), Scorer(workers.cores()) as scorer:
        rows = gate.measured(bank, scorer)
    terminal.line(f"{card.name}: unprocessed test set of {max(row.pairs for row in rows):,} pairs")
    for row in rows:
        terminal.line(f"{card.name}: {row}")
    if not all(row.holds for row in rows):
        raise typer.Exit(1)
