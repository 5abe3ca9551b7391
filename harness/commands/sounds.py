"""A recording of the user's own through trained models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.commands import terminal
from harness.commands.options import Device, Plugin, Source, TrackingUri
from harness.errors import UserError

app = typer.Typer()


@app.command()
def enhance(
    source: Source,
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Where to; the suffix names the format.")],
    run: Annotated[str | None, typer.Option(help="Id of a confirmed run.")] = None,
    loss: Annotated[str | None, typer.Option(help="Instead, the loss whose confirmed run is meant.")] = None,
    device: Device = "auto", plugin: Plugin = None, tracking_uri: TrackingUri = None,
) -> None:  # fmt: skip
    """Denoise a recording with the model that a loss has trained."""
    from harness import enhance as denoisers
    from harness import recording
    from harness.data.audio import SAMPLE_RATE
    from harness.devices import pick_device
    from harness.plugins import load_plugins
    from harness.report import runs
    from harness.tracking import Tracker

    if (run is None) == (loss is None):
        raise UserError("enhance: wants either --run ID or --loss NAME")
    recording.format_of(target)
    if target.resolve() == source.resolve():
        raise UserError(f"{target}: is the recording itself; name another file to write")
    heard = recording.read(source)
    load_plugins(plugin or [])
    tracker = Tracker(tracking_uri)
    run = run or denoisers.pick(runs.read(tracker).runs, loss or "")
    denoiser = denoisers.load(tracker, run, pick_device(device))
    down = recording.write(target, denoisers.enhance(denoiser, heard))
    channels = f"{len(heard.samples)} channels" if len(heard.samples) > 1 else "1 channel"
    terminal.say(f"{target}: {heard.samples.shape[1] / heard.rate:.1f} s, {channels}, by {denoiser.about}")
    if down > 0:
        terminal.say(f"turned down by {down:.1f} dB, so that it does not clip")
    if heard.rate > SAMPLE_RATE:
        terminal.say(f"models hear up to {SAMPLE_RATE // 2000} kHz: what was above is gone")


@app.command()
def listen(source: Source, device: Device = "auto", plugin: Plugin = None, tracking_uri: TrackingUri = None) -> None:
    """Denoise a recording with every confirmed loss's model, as a page to listen to: reports/listen.html."""
    from harness import paths, recording
    from harness.devices import pick_device
    from harness.plugins import load_plugins
    from harness.report import listen as page
    from harness.report import ranking, runs
    from harness.tracking import Tracker

    whole = recording.read(source)
    load_plugins(plugin or [])
    tracker = Tracker(tracking_uri)
    results, heard = runs.read(tracker), page.excerpt(whole)
    with terminal.bar("denoising") as show:
        analysis, where = ranking.analyse(results), pick_device(device)
        sections = page.through_all(tracker, results, analysis, heard, where, show)
    with terminal.console.status("drawing"):
        written = page.write_listen(source.name, whole, heard, sections, paths.reports())
    terminal.say(f"{sum(len(own) for _, own in sections)} losses: {written}")
