"""Studies: run, joined, planned."""

from __future__ import annotations

import functools
from typing import Any

import typer
from rich.table import Table

from harness.commands import terminal
from harness.commands.options import networks, of_a_study
from harness.commands.results import show_report
from harness.errors import UserError

app = typer.Typer()


def _open(loaded: Any, options: Any) -> Any:
    """The context of a study, with a bar while recordings are fetched and decoded. What waits for the store is sent first."""
    from harness import outbox, workers
    from harness.bars import DataBar

    with DataBar(terminal.console) as bar:
        context = workers.open_study(loaded, options, workers.cores(), terminal.say, bar)
    if context.gate:
        terminal.line(context.gate)
    outbox.send(context.tracker)
    return context


def _run(context: Any, options: Any, joining: bool = False) -> tuple[list[str], bool]:
    """Make the runs that are left: what failed, in lines, and whether the time ran out first. Ends the command where the store
    does not take the results."""
    from harness import estimate, outbox, workers
    from harness import study as studies

    networks([*context.study.losses, context.study.reference.loss], context.study.corpus, options)
    failures = workers.run(context, options, terminal.console, joining)
    context.tracker.away_until = 0.0  # the last chance to send is taken
    if left := outbox.send(context.tracker):
        _fail(failures)
        raise UserError(
            f"tracking-uri {context.tracker.shown!r}: does not take results; {left} of them wait in runs/outbox, and the "
            "same command sends them once it does"
        )
    try:
        rows = studies.plan(context) if options.max_hours is not None else []
    except Exception:
        _fail(failures)
        raise
    stopped = any(row.settled < row.trials for row in rows)
    if stopped:
        terminal.say(f"stopped after {options.max_hours:g} hours: {estimate.sentence(context, rows, options)}")
        terminal.say("the same command goes on where this one stopped")
    return failures, stopped


def _fail(failures: list[str]) -> None:
    for failure in failures:
        terminal.console.print(f"not done: {failure}", style="red", markup=False)


@app.command()
@of_a_study
def study(loaded: Any, options: Any) -> None:
    """Tune and confirm the losses of a study, measure their cost, and write the report. Finished runs are reused."""
    from harness import bench, entrants
    from harness import study as studies

    context = _open(loaded, options)
    failures, stopped = _run(context, options)
    if not stopped:
        with terminal.console.status("measuring throughput") as status:

            def show(text: str, done: int, of: int) -> None:
                status.update(f"measuring throughput: {text} ({done + 1} of {of})")

            found = [*entrants.asked(loaded), *entrants.controls(loaded), entrants.reference(loaded)]
            found = studies.trained(context, found)
            for how in dict.fromkeys(entrant.weighting for entrant in found):
                weighed = [entrant.loss for entrant in found if entrant.weighting == how]
                failures += bench.measure(context, weighed, False, show, how)[1]
    try:
        show_report(context.tracker, context.protocol_digest)
    finally:
        _fail(failures)
    if failures:
        raise typer.Exit(1)


@app.command()
@functools.partial(of_a_study, default="soak")
def soak(loaded: Any, options: Any) -> None:
    """Train every denoising loss (the study soak) and say which do not improve on the mixture. Exits with 1 where one does not."""
    from harness.report import runs
    from harness.report import soak as soaked

    context = _open(loaded, options)
    failures, _ = _run(context, options)
    try:
        show_report(context.tracker, context.protocol_digest)
        verdicts = soaked.verdicts(runs.read(context.tracker), context.protocol_digest)
        table = Table("loss", "metric", "gain over unprocessed", "95 % interval over prompts", "improves")
        for row in verdicts:
            table.add_row(*soaked.as_text(row), style=None if row["improves"] else "red")
        terminal.console.print(table)
    finally:
        _fail(failures)
    if failures or not all(row["improves"] for row in verdicts):
        raise typer.Exit(1)


@app.command()
@of_a_study
def worker(loaded: Any, options: Any) -> None:
    """Join a study that runs elsewhere on the same stores, given the same options: make runs, write no report."""
    failures, _ = _run(_open(loaded, options), options, joining=True)
    _fail(failures)
    if failures:
        raise typer.Exit(1)


@app.command()
@of_a_study
def plan(loaded: Any, options: Any) -> None:
    """Show what `study` would run, what it would reuse, and how long that takes. Starts no run."""
    from harness import estimate
    from harness import study as studies

    context = _open(loaded, options)
    rows = studies.plan(context)
    table = Table(
        "loss",
        "phase",
        "runs",
        "reused",
        "to run",
        "updates each",
        title=f"{loaded.name}: protocol {context.protocol_digest}",
    )
    for row in rows:
        counts = (row.trials, row.settled, row.trials - row.settled, row.updates or "")
        table.add_row(row.loss, row.phase.replace("_", " "), *map(str, counts))
    terminal.console.print(table)
    if drawn := studies.spaces(context):
        table = Table("loss", "drawn by the search", "between")
        for cells in drawn:
            table.add_row(*cells)
        terminal.console.print(table)
    terminal.say(estimate.sentence(context, rows, options))
