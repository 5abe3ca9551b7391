"""Results: reported, moved between machines, browsed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from harness.commands import terminal
from harness.commands.options import Json, TrackingUri
from harness.errors import UserError

app = typer.Typer()


@app.command("export")
def export_(
    where: Annotated[list[str], typer.Argument(metavar="[FILTER] DIR", help="MLflow filter, e.g. \"tags.loss = 'mse'\".")],
    tracking_uri: TrackingUri = None,
) -> None:  # fmt: skip
    """Write finished runs with their per-item scores to DIR, as Parquet and JSON: for another machine, or a repository."""
    from harness import exchange
    from harness.tracking import Tracker

    if len(where) > 2:
        raise UserError("export: takes [FILTER] DIR; quote a filter that holds spaces")
    folder = Path(where[-1])
    with terminal.bar("exporting") as show:
        count = exchange.write(Tracker(tracking_uri), where[0] if len(where) == 2 else "", folder, show)
    terminal.say(f"{count} runs in {folder}")


@app.command("import")
def import_(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that `harness export` wrote, or one of such folders.")
    ],
    tracking_uri: TrackingUri = None,
) -> None:
    """Take finished runs from DIR into the store, where they are ranked and reused like its own."""
    from harness import exchange
    from harness.tracking import Tracker

    with terminal.bar("importing") as show:
        made, known, notes = exchange.read(Tracker(tracking_uri), folder, show)
    terminal.say(f"{made} runs imported, {known} known before")
    for note in notes:
        terminal.say(note)


@app.command()
def report(tracking_uri: TrackingUri = None) -> None:
    """Write reports/ from the MLflow store alone."""
    from harness.tracking import Tracker

    show_report(Tracker(tracking_uri), None)


@app.command()
def results() -> None:
    """Write the pages in docs/results/ and the results in README.md, from the exports in docs/results/runs alone."""
    from harness import paths, published

    with terminal.bar("importing") as show:
        pages = published.make(paths.RESULTS, paths.README, show)
    terminal.say(f"{len(pages)} pages and pictures in {paths.RESULTS}, and the results in {paths.README}")


@app.command()
def claims(tracking_uri: TrackingUri = None, as_json: Json = False) -> None:
    """Hold what the literature claims of losses against the runs of the store: holds, fails, cannot tell, or which study to run."""
    from harness.report import claims, ranking, runs
    from harness.report.claims import write
    from harness.tracking import Tracker

    results = runs.read(Tracker(tracking_uri))
    checked = claims.check(results, ranking.analyse(results))
    if as_json:
        print(json.dumps(write.data(checked), indent=1))
        return
    for line in write.lines(checked):
        terminal.line(line)
    terminal.say(f"{len(checked)} claims: {write.counted(checked)}")


def show_report(tracker: Any, protocol: str | None) -> None:
    """Write the report; print the table of one protocol, or of all. After a study of one, a report that is current stays."""
    from harness import outbox, paths
    from harness.report import notes, ranking, runs, stamp, tables, words

    with terminal.console.status("writing the report"):
        results = runs.read(tracker)
        analysis = ranking.analyse(results)
        if protocol is None or not stamp.current(results, paths.reports()):
            from harness.report import page

            page.write_report(results, paths.reports(), analysis)
            outbox.attempt(tracker, lambda: tracker.describe(*notes.notes(results, analysis)))
            stamp.leave(results, paths.reports())
    for name in [protocol] if protocol else dict.fromkeys(analysis.ranking["protocol"]):
        rows = tables.summary_table(analysis, name)
        table = Table(box=None, padding=(0, 1), pad_edge=False)
        for number, column in enumerate(rows.columns):
            table.add_column(str(column), justify="left" if number == 0 else "right")
        for row in rows.itertuples(index=False):
            table.add_row(*(str(cell) for cell in row))
        terminal.console.print(table)
        terminal.say(
            f"protocol {name}, matched test: mean, gain over the first control; losses that share a letter are tied"
        )
        if noise := words.noise(analysis, name, "matched"):
            terminal.say(f"the harness's own noise: {noise}")
    terminal.say(f"report: {paths.reports() / 'index.html'}")


@app.command()
def ui(port: Annotated[int, typer.Option(min=1, max=65535)] = 5000, tracking_uri: TrackingUri = None) -> None:
    """Browse the runs in MLflow's own UI, on 127.0.0.1."""
    from harness.tracking import Tracker, serve

    serve(Tracker(tracking_uri), port, terminal.say)
