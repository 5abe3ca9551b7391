"""Measurements: what losses cost, and what they mind."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from harness.commands import terminal
from harness.commands.options import (
    Corpus,
    DataDir,
    Device,
    Json,
    Loss,
    Model,
    Name,
    Plugin,
    Scale,
    Storage,
    TrackingUri,
    Weighting,
    load,
    networks,
)
from harness.errors import UserError

app = typer.Typer()


@app.command()
def bench(
    name: Name = None, loss: Loss = None, model: Model = None, corpus: Corpus = None, data_dir: DataDir = None,
    weighting: Weighting = None, device: Device = "auto", plugin: Plugin = None, tracking_uri: TrackingUri = None,
    as_json: Json = False,
    peers: Annotated[bool, typer.Option("--peers", help="Instead, compare with other implementations.")] = False,
    scale: Scale = False, storage: Storage = None,
    hours: Annotated[
        str | None, typer.Option(help="Instead, make corpora of so many hours, as in '1 5 20', and train on them.")
    ] = None,
) -> None:  # fmt: skip
    """Measure every loss of a task alone and in a training step, and what the harness's own loop costs. Wants an idle device.

    With --scale: what logging, claiming and reporting cost at 10, 100 and 1,000 trials, on temporary stores (a while), trials an
    hour by 1, 2 and 3 workers, and operations a second of SQLite and of --storage.

    With --hours: time, disk and memory of decoding a corpus and of training on it, in a temporary folder (200 MB an hour).
    """
    if hours is not None:
        if corpus or data_dir or name:
            raise UserError("--hours makes recordings of its own: leave the study, --corpus and --data-dir out")
        _size(hours, model, loss, device, as_json)
        return
    from rich.progress import Progress

    from harness import bench as benches
    from harness import catalogue
    from harness import workers as pool
    from harness.devices import device_name

    loaded = load(name, loss, plugin, model=model, corpus=corpus)
    options = pool.Options(device, 1, data_dir, None, tracking_uri, tuple(plugin or ()))
    if scale:
        _scale(loaded, replace(options, tracking_uri=None, storage=storage), as_json)
        return

    def say(line: str) -> None:
        if not as_json:
            terminal.say(line)

    context = pool.open_study(loaded, options, 1, say)
    if peers:
        _peers(context, as_json)
        return
    wanted = loss or catalogue.trainable(loaded.task)
    networks(wanted, loaded.corpus, options, say)
    with Progress(
        console=terminal.console, transient=True, disable=as_json or not terminal.console.is_terminal
    ) as progress:
        line = progress.add_task("measuring", total=len(wanted))

        def show(text: str, done: int, of: int) -> None:
            progress.update(line, description=text, completed=done, total=of)

        rows, failures = benches.measure(context, wanted, True, show, weighting or "fixed")
        if failures:
            raise UserError(failures[0])
        ratios = benches.overhead(context, loaded.reference.loss)
        share = benches.data_share(context, float(rows[0]["step_ms"]))
    middle = sorted(ratios)[len(ratios) // 2]
    where = device_name(context.device)
    if as_json:
        print(
            json.dumps(
                {"device": where, "losses": rows, "loop_ratio": middle, "loop_ratios": ratios, "data_share": share},
                indent=1,
            )
        )
        return
    table = Table(
        Column("loss", min_width=max(len(str(row["loss"])) for row in rows)),
        "ms alone",
        "x mse",
        "step ms",
        f"x {context.task.reference}",
        "updates/s",
        "audio s/s",
        "peak MiB",
        title=f"{where}, {rows[0]['threads']} thread",
    )
    for row in rows:
        numbers = (
            row["loss_ms"],
            row["ratio_to_mse"],
            row["step_ms"],
            row["step_ratio"],
            row["updates_per_s"],
            row["audio_s_per_s"],
            row["peak_mib"],
        )
        table.add_row(str(row["loss"]), *(f"{float(number):.3g}" for number in numbers))
    terminal.console.print(table)
    spread = f"median of {len(ratios)}, {min(ratios):.3f}-{max(ratios):.3f}"
    terminal.say(f"training loop: {middle:.3f} x a bare loop with the same model, loss and batches ({spread})")
    terminal.say(f"making a batch: {100 * share:.1f} % of a training step")


def _peers(context: Any, as_json: bool) -> None:
    """The table of `bench --peers`."""
    from dataclasses import asdict

    from harness import bench as benches
    from harness import peers
    from harness.devices import device_name

    left_out: list[str] = []
    rows = peers.compare(*benches.speech(context, peers.SECONDS), say=left_out.append)
    where = device_name(context.device)
    if as_json:
        print(json.dumps({"device": where, "peers": [asdict(row) for row in rows], "left_out": left_out}, indent=1))
        return
    table = Table("loss", "implementation", "value", "ms", "x ours", title=f"{where}, 8 x {peers.SECONDS} s of speech")
    for row in rows:
        table.add_row(row.loss, row.implementation, f"{row.value:.6g}", f"{row.ms:.3g}", f"{row.ratio:.2f}")
    terminal.console.print(table)
    for line in left_out:
        terminal.say(line)


def _scale(loaded: Any, options: Any, as_json: bool) -> None:
    from harness import scale

    with terminal.console.status("measuring") as status:
        found = scale.measure(loaded, options, scale.SIZES, lambda line: status.update(line))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    terminal.console.print(scale.table(found))
    for line in scale.sentences(found):
        terminal.say(line)


def _size(hours: str, model: str | None, loss: list[str] | None, device: str, as_json: bool) -> None:
    from harness import size
    from harness.bars import DataBar

    wanted, loaded = size.parsed(hours), size.study(model, loss)

    def say(line: str) -> None:
        if not as_json:
            terminal.say(line)

    with DataBar(terminal.console) as bar:
        found = size.measure(loaded, device, wanted, say, bar)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    terminal.console.print(size.table(found))
    if line := size.sentence(found):
        terminal.say(line)


@app.command()
def atlas(loss: Loss = None, data_dir: DataDir = None, plugin: Plugin = None) -> None:
    """Show what each loss of an estimate minds: its value and gradient as a test prompt is spoilt, in reports/atlas.html."""
    from harness import atlas as atlases
    from harness import catalogue, paths
    from harness.bars import DataBar
    from harness.plugins import load_plugins
    from harness.workers import Options

    load_plugins(plugin or [])
    wanted = loss or catalogue.trainable(atlases.TASK)
    with DataBar(terminal.console) as bar:
        clean = atlases.speech(data_dir, terminal.say, bar)
    networks(wanted, atlases.CORPUS, Options(data_dir=data_dir))
    with terminal.bar("measuring") as show:
        table = atlases.responses(wanted, clean, show)
    with terminal.console.status("drawing"):
        from harness.report.atlas import write_atlas

        page = write_atlas(table, paths.reports())
    terminal.say(f"atlas of {table['loss'].nunique()} losses: {page}, and the numbers in {page.with_suffix('.csv')}")
