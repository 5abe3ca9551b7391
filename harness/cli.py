"""The command line: thin commands. Everything heavy is imported inside them, so that `--help` is instant."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from harness.errors import UserError

app = typer.Typer(
    help="Which loss should train my speech model? Trains, tunes, confirms and ranks losses on the same real recordings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Recordings: list the corpora, fetch them, check what is on disk.", no_args_is_help=True)
app.add_typer(data_app, name="data")
console = Console(highlight=False)
DEFAULT_TASK = "denoise"  # its quick form is the study quick; that of another task is the study of its name

Name = Annotated[
    str | None,
    typer.Argument(
        help="A study in studies/ or a YAML file; without one, the command's own (that of the task, or soak).",
        show_default=False,
    ),
]
Loss = Annotated[
    list[str] | None,
    typer.Option("--loss", help="Loss expression, e.g. 'si_sdr(max_db=20)'; may be given several times."),
]
Task = Annotated[str | None, typer.Option(help="Task, e.g. denoise.")]
Model = Annotated[str | None, typer.Option(help="Model, e.g. gru_mask.")]
Corpus = Annotated[
    str | None,
    typer.Option(
        help="Corpus, e.g. prompts; 'librispeech + demand': speech and noise; or a folder of your own recordings."
    ),
]
DataDir = Annotated[Path | None, typer.Option(help="Folder that already holds the corpus's recordings.")]
Weighting = Annotated[
    str | None, typer.Option(help="How the terms of a combination are balanced, e.g. 'uncertainty(rate=20)'.")
]
Objective = Annotated[
    str | None,
    typer.Option(help="Score that tuning maximises: quality, a metric such as pesq_wb, or several, pesq_wb,stoi."),
]
Trials = Annotated[
    int | None,
    typer.Option(
        min=1, help="Learning rates to try, half decades down from 1e-2; of a search, its trials, 20 at least."
    ),
]
Updates = Annotated[int | None, typer.Option(min=1, help="Updates of a confirming run; tuning runs get 40 %.")]
Seeds = Annotated[int | None, typer.Option(min=1, help="Fresh seeds that confirm the chosen setting.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that share the trials; 0: as many as suit the device.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<number>.")]
Plugin = Annotated[
    list[Path] | None, typer.Option(help="Python file that registers losses, models or weightings of your own.")
]
Storage = Annotated[str | None, typer.Option(help="Optuna storage URL; default: runs/optuna.db.")]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow tracking URI; default: runs/mlflow.db.")]
MaxHours = Annotated[
    float | None, typer.Option(min=0.001, help="Stop cleanly after so many hours and say what remains.")
]
EqualTime = Annotated[
    bool | None, typer.Option("--equal-time", help="Confirm once more, each loss in the time that the reference takes.")
]
Controls = Annotated[
    bool | None, typer.Option("--controls/--no-controls", help="Train what stands beside combinations of losses.")
]
Source = Annotated[Path, typer.Argument(metavar="IN", help="A recording: any rate, length and number of channels.")]
Scale = Annotated[bool, typer.Option("--scale", help="Measure the bookkeeping of many trials instead.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _say(line: str) -> None:
    console.print(line, markup=False)


def _line(line: str) -> None:
    """Said on one line, however long it is."""
    console.print(line, markup=False, soft_wrap=True)


def _load(
    name: str | None,
    loss: list[str] | None,
    plugin: list[Path] | None,
    trials: int | None = None,
    updates: int | None = None,
    **plain: Any,
) -> Any:
    """The study with the command's overrides."""
    from harness import catalogue, spec, tasks
    from harness.data import corpora
    from harness.plugins import load_plugins

    load_plugins(plugin or [])
    overrides = {key: value for key, value in plain.items() if value is not None}
    if loss:
        overrides["losses"] = loss
    if "corpus" in overrides:
        overrides["corpus"], *noise = corpora.parts(overrides["corpus"])
        overrides |= {"scenes": {"noise": noise}} if noise else {}
    picked = name is None and overrides.get("task") is None and bool(loss or "corpus" in overrides)
    if picked:
        overrides["task"] = catalogue.best_task(loss or (), overrides.get("corpus"))
    task = tasks.get(overrides.get("task", DEFAULT_TASK)).name
    name = name or ("quick" if task == DEFAULT_TASK else task)
    if updates is not None:
        overrides["updates"] = {"confirm": updates, "tune": max(1, round(0.4 * updates))}
    loaded = spec.load(name, overrides, trials)
    if picked:
        wanted = loaded.losses if loss else [loaded.corpus]
        print(f"task: {loaded.task}, which fits {' and '.join(wanted)} best; --task names another", file=sys.stderr)
    return loaded


def _asked(
    name: Name = None, loss: Loss = None, task: Task = None, model: Model = None, corpus: Corpus = None, data_dir: DataDir = None,
    weighting: Weighting = None, objective: Objective = None, trials: Trials = None, updates: Updates = None, seeds: Seeds = None,
    workers: Workers = 0, device: Device = "auto", plugin: Plugin = None, storage: Storage = None, tracking_uri: TrackingUri = None,
    max_hours: MaxHours = None, equal_time: EqualTime = None, controls: Controls = None,
) -> tuple[Any, Any]:  # fmt: skip
    """The study and how it is to be run: the parameters that `study`, `plan` and `worker` share."""
    loaded = _load(
        name,
        loss,
        plugin,
        trials,
        updates,
        task=task,
        model=model,
        corpus=corpus,
        weighting=weighting,
        objective=objective,
        seeds=seeds,
        equal_time=equal_time,
        controls=controls,
    )
    from harness.workers import Options

    return loaded, Options(device, workers, data_dir, storage, tracking_uri, tuple(plugin or ()), max_hours)


def _of_a_study(body: Callable[[Any, Any], None], default: str | None = None) -> Callable[..., None]:
    """A command with the parameters of `_asked`, whose body gets the study and its options. default: the study without a name."""

    @functools.wraps(body)
    def command(**given: Any) -> None:
        body(*_asked(**{**given, "name": given.get("name") or default}))

    command.__signature__ = inspect.signature(_asked, eval_str=True).replace(return_annotation=None)  # type: ignore[attr-defined]
    command.__annotations__ = {**_asked.__annotations__, "return": "None"}
    return command


def _open(loaded: Any, options: Any) -> Any:
    """The context of a study, with a bar while recordings are fetched and decoded. What waits for the store is sent first."""
    from harness import outbox, workers
    from harness.bars import DataBar

    with DataBar(console) as bar:
        context = workers.open_study(loaded, options, workers.cores(), _say, bar)
    if context.gate:
        _line(context.gate)
    outbox.send(context.tracker)
    return context


def _run(context: Any, options: Any) -> tuple[list[str], bool]:
    """Make the runs that are left: what failed, in lines, and whether the time ran out first. Ends the command where the store
    does not take the results."""
    from harness import estimate, outbox, workers
    from harness import study as studies

    _networks([*context.study.losses, context.study.reference.loss], context.study.corpus, options)
    failures = workers.run(context, options, console)
    context.tracker.away_until = 0.0  # the last chance to send is taken
    if left := outbox.send(context.tracker):
        _fail(failures)
        raise UserError(
            f"tracking-uri {context.tracker.uri!r}: does not take results; {left} of them wait in runs/outbox, and the "
            "same command sends them once it does"
        )
    rows = studies.plan(context) if options.max_hours is not None else []
    stopped = any(row.settled < row.trials for row in rows)
    if stopped:
        _say(f"stopped after {options.max_hours:g} hours: {estimate.sentence(context, rows, options)}")
        _say("the same command goes on where this one stopped")
    return failures, stopped


def _networks(expressions: list[str], corpus: str, options: Any, say: Callable[[str], None] = _say) -> None:
    """Train, before workers would all at once, what these losses compare features with."""
    from harness import features
    from harness.bars import DataBar
    from harness.models.features import Recipe

    with DataBar(console) as bar:
        features.ensure(expressions, options.data_dir if corpus == Recipe.speech else None, say, bar)


def _fail(failures: list[str]) -> None:
    for failure in failures:
        console.print(f"not done: {failure}", style="red", markup=False)


@app.command()
@_of_a_study
def study(loaded: Any, options: Any) -> None:
    """Tune and confirm the losses of a study, measure their cost, and write the report. Finished runs are reused."""
    from harness import bench, entrants

    context = _open(loaded, options)
    failures, stopped = _run(context, options)
    if not stopped:
        with console.status("measuring throughput") as status:

            def show(text: str, done: int, of: int) -> None:
                status.update(f"measuring throughput: {text} ({done + 1} of {of})")

            found = [*entrants.asked(loaded), *entrants.controls(loaded), entrants.reference(loaded)]
            for how in dict.fromkeys(entrant.weighting for entrant in found):
                weighed = [entrant.loss for entrant in found if entrant.weighting == how]
                failures += bench.measure(context, weighed, False, show, how)[1]
    _report(context.tracker, context.protocol_digest)
    _fail(failures)
    if failures:
        raise typer.Exit(1)


@app.command()
@functools.partial(_of_a_study, default="soak")
def soak(loaded: Any, options: Any) -> None:
    """Train every denoising loss (the study soak) and say which do not improve on the mixture. Exits with 1 where one does not."""
    from harness.report import runs
    from harness.report import soak as soaked

    context = _open(loaded, options)
    failures, _ = _run(context, options)
    _report(context.tracker, context.protocol_digest)
    verdicts = soaked.verdicts(runs.read(context.tracker), context.protocol_digest)
    table = Table("loss", "metric", "gain over unprocessed", "95 % interval over prompts", "improves")
    for row in verdicts:
        table.add_row(*soaked.as_text(row), style=None if row["improves"] else "red")
    console.print(table)
    _fail(failures)
    if failures or not all(row["improves"] for row in verdicts):
        raise typer.Exit(1)


@app.command()
@_of_a_study
def worker(loaded: Any, options: Any) -> None:
    """Join a study that runs elsewhere on the same stores, given the same options: make runs, write no report."""
    failures, _ = _run(_open(loaded, options), options)
    _fail(failures)
    if failures:
        raise typer.Exit(1)


@app.command()
@_of_a_study
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
    console.print(table)
    if drawn := studies.spaces(context):
        table = Table("loss", "drawn by the search", "between")
        for cells in drawn:
            table.add_row(*cells)
        console.print(table)
    _say(estimate.sentence(context, rows, options))


@app.command()
def losses(as_json: Json = False, plugin: Plugin = None) -> None:
    """List every loss, and the models, tasks and weightings it can be used with."""
    from harness import catalogue
    from harness.plugins import load_plugins

    load_plugins(plugin or [])
    if as_json:
        print(json.dumps(catalogue.as_data(), indent=1))
        return
    table = Table("loss", "fields [optional]", "settings", "minimum", "targets", "tasks")
    for row in catalogue.as_data()["losses"]:
        settings = "\n".join(f"{key}={value['default']}" for key, value in row["settings"].items())
        minimum = "" if row["minimum"] is None else f"{row['minimum']:g} {row['unit']}".strip()
        fields = "\n".join([*row["fields"], *(f"\\[{name}]" for name in row["optional_fields"])])
        cells = (fields, settings, minimum, " ".join(row["targets"]), " ".join(row["tasks"]) or "none yet")
        table.add_row(" = ".join([row["name"], *row["aliases"]]), *cells)
    console.print(table)
    _say("ranges of the settings, papers, families and versions: harness losses --json")
    for what, names in catalogue.others().items():
        _say(f"{what}: {', '.join(names)}")


@app.command()
def check(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Python file that registers losses, models or weightings of your own."),
    ],
) -> None:
    """Hold a loss, model or weighting of your own to what ours are held to: a line for each thing that fails, with the mend."""
    from itertools import groupby

    from harness import conformance

    failed = False
    for name, held in groupby(conformance.of_file(file), lambda each: each[0]):
        passed = 0
        for _, check, faults in held:
            passed += not faults
            if faults:
                failed = True
                more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
                line = f"{name}: fails: {check.sentence}: {'; '.join(faults[:3])}{more}. Mend: {check.mend}"
                console.print(line, style="red", markup=False, soft_wrap=True)
        _say(f"{name}: {passed} checks hold{conformance.without_gpu()}")
    if failed:
        raise typer.Exit(1)


@app.command()
def features(data_dir: DataDir = None) -> None:
    """Train the network of deep_feature, unless it is there, and say how often it is right. A study does so by itself."""
    from harness import features as made
    from harness.bars import DataBar
    from harness.models.features import Recipe

    recipe = Recipe()
    with DataBar(console) as bar:
        accuracy = made.made(recipe, data_dir, _say, bar)["accuracy"]
    right = ", ".join(f"{100 * share:.0f} % of {task}" for task, share in accuracy.items())
    _say(f"{recipe.checkpoint}: right in validation on {right}")


@data_app.command("list")
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
    console.print(table)


def _recorded(names: list[str] | None) -> list[Any]:
    from harness.data import corpora

    if names:
        cards = [corpora.card(name) for name in names]
        cards += [card.noise_beside for card in cards if card.own_noise]
    else:
        cards = [card for name in corpora.names() if not (card := corpora.card(name)).public]
    return [card for card in cards if card.recorded]


Corpora = Annotated[
    list[str] | None,
    typer.Argument(
        help="Corpora, or folders of your own; without any, all that come with the harness.", show_default=False
    ),
]


@data_app.command("fetch")
def data_fetch(names: Corpora = None, data_dir: DataDir = None) -> None:
    """Fetch and decode recordings that are not there yet, and make the words of synthetic speech."""
    from harness.bars import DataBar
    from harness.data import corpora
    from harness.data.bank import open_bank
    from harness.data.words import open_words

    for card in _recorded(names):
        with DataBar(console) as bar:
            bank = open_bank(card, data_dir, _say, bar)
        hours = bank.clips["samples"].sum() / 16_000 / 3600
        _say(f"{card.name}: {len(bank.clips)} clips, {hours:.2f} h in {bank.folder}")
        where = card.root or card.name
        _say(f"{card.name}: {len(bank.left_out())} recordings left out; their reasons: harness data check {where}")
    for name in [] if names else corpora.names("words"):
        with DataBar(console) as bar:
            bank = open_words(corpora.card(name), _say, bar).bank
        _say(f"{name}: {len(bank.clips)} words, made by a synthesiser, in {bank.folder}")


@data_app.command("check")
def data_check(names: Corpora = None, data_dir: DataDir = None) -> None:
    """Check recordings against their cards, and list what is left out and why. Exits with 1 where something is wrong."""
    from harness import paths
    from harness.bars import DataBar
    from harness.data.bank import open_bank
    from harness.data.fetch import faults

    wrong = 0
    for card in _recorded(names):
        root = data_dir or paths.AUDIO / card.name
        found = faults(card, root)
        wrong += len(found)
        for fault in found:
            console.print(f"{card.name}: {fault}", style="red", markup=False)
        if found:
            continue
        with DataBar(console) as bar:
            bank = open_bank(card, data_dir, _say, bar)
        counts = bank.clips.groupby("split")["samples"].agg(["size", "sum"])
        shares = ", ".join(
            f"{split} {row['size']} clips {row['sum'] / 960_000:.1f} min" for split, row in counts.iterrows()
        )
        _say(f"{card.name}: {'contents as the card says; ' if card.contents else ''}{shares}")
        left_out, notes = bank.left_out(), bank.notes() if not card.contents else None
        for row in left_out.itertuples():
            _line(f"  left out: {row.clip}: {row.reason}")
        for row in notes.itertuples() if notes is not None else ():
            _line(f"  kept, but: {row.clip}: {row.reason}")
        wrong += 0 if card.contents else len(left_out)
    if wrong:
        raise typer.Exit(1)


@data_app.command("gate")
def data_gate(
    name: Annotated[str, typer.Argument(help="A corpus whose card has a gate.")] = "voicebank_demand",
    data_dir: DataDir = None,
) -> None:
    """Measure the unprocessed test set and compare with what is published of it. Exits with 1 where it differs."""
    from harness import gate, workers
    from harness.bars import DataBar
    from harness.data import corpora
    from harness.data.bank import open_bank
    from harness.metrics import Scorer

    card = corpora.card(name)
    if not card.gate:
        raise UserError(f"corpus {name!r} has no gate; try voicebank_demand")
    with DataBar(console) as bar:
        bank = open_bank(card, data_dir, _say, bar)
    with console.status("measuring the unprocessed test set"), Scorer(workers.cores()) as scorer:
        rows = gate.measured(bank, scorer)
    for row in rows:
        _line(f"{card.name}: {row}")
    if not all(row.holds for row in rows):
        raise typer.Exit(1)


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
    with _bar("exporting") as show:
        count = exchange.write(Tracker(tracking_uri), where[0] if len(where) == 2 else "", folder, show)
    _say(f"{count} runs in {folder}")


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `harness export` wrote.")],
    tracking_uri: TrackingUri = None,
) -> None:
    """Take finished runs from DIR into the store, where they are ranked and reused like its own."""
    from harness import exchange
    from harness.tracking import Tracker

    with _bar("importing") as show:
        made, known, notes = exchange.read(Tracker(tracking_uri), folder, show)
    _say(f"{made} runs imported, {known} known before")
    for note in notes:
        _say(note)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    from rich.progress import Progress

    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        line = progress.add_task(what, total=None)
        yield lambda done, of: progress.update(line, completed=done, total=of)


@app.command()
def report(tracking_uri: TrackingUri = None) -> None:
    """Write reports/ from the MLflow store alone."""
    from harness.tracking import Tracker

    _report(Tracker(tracking_uri), None)


def _report(tracker: Any, protocol: str | None) -> None:
    """Write the report; print the table of one protocol, or of all. After a study of one, a report that is current stays."""
    from harness import outbox, paths
    from harness.report import notes, ranking, runs, stamp, tables, words

    with console.status("writing the report"):
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
        console.print(table)
        _say(f"protocol {name}, matched test: mean, gain over the first control; losses that share a letter are tied")
        if noise := words.noise(analysis, name, "matched"):
            _say(f"the harness's own noise: {noise}")
    _say(f"report: {paths.reports() / 'index.html'}")


@app.command()
def bench(
    name: Name = None, loss: Loss = None, model: Model = None, corpus: Corpus = None, data_dir: DataDir = None,
    weighting: Weighting = None, device: Device = "auto", plugin: Plugin = None, tracking_uri: TrackingUri = None,
    as_json: Json = False,
    peers: Annotated[bool, typer.Option("--peers", help="Instead, compare with other implementations.")] = False,
    scale: Scale = False,
) -> None:  # fmt: skip
    """Measure every loss of a task alone and in a training step, and what the harness's own loop costs. Wants an idle device.

    With --scale: what logging, claiming and reporting cost at 10, 100 and 1,000 trials, on temporary stores (a while).
    """
    from rich.progress import Progress

    from harness import bench as benches
    from harness import catalogue
    from harness import workers as pool
    from harness.devices import device_name

    loaded = _load(name, loss, plugin, model=model, corpus=corpus)
    options = pool.Options(device, 1, data_dir, None, tracking_uri, tuple(plugin or ()))
    if scale:
        _scale(loaded, replace(options, tracking_uri=None), as_json)
        return

    def say(line: str) -> None:
        if not as_json:
            _say(line)

    context = pool.open_study(loaded, options, 1, say)
    if peers:
        _peers(context, as_json)
        return
    wanted = loss or catalogue.trainable(loaded.task)
    _networks(wanted, loaded.corpus, options, say)
    with Progress(console=console, transient=True, disable=as_json or not console.is_terminal) as progress:
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
        "loss",
        "ms alone",
        "x mse",
        "step ms",
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
            row["updates_per_s"],
            row["audio_s_per_s"],
            row["peak_mib"],
        )
        table.add_row(str(row["loss"]), *(f"{float(number):.3g}" for number in numbers))
    console.print(table)
    spread = f"median of {len(ratios)}, {min(ratios):.3f}-{max(ratios):.3f}"
    _say(f"training loop: {middle:.3f} x a bare loop with the same model, loss and batches ({spread})")
    _say(f"making a batch: {100 * share:.1f} % of a training step")


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
    console.print(table)
    for line in left_out:
        _say(line)


def _scale(loaded: Any, options: Any, as_json: bool) -> None:
    from harness import scale

    with console.status("measuring") as status:
        found = scale.measure(loaded, options, scale.SIZES, lambda line: status.update(line))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    console.print(scale.table(found))
    for line in scale.sentences(found):
        _say(line)


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
    with DataBar(console) as bar:
        clean = atlases.speech(data_dir, _say, bar)
    _networks(wanted, atlases.CORPUS, Options(data_dir=data_dir))
    with _bar("measuring") as show:
        table = atlases.responses(wanted, clean, show)
    with console.status("drawing"):
        from harness.report.atlas import write_atlas

        page = write_atlas(table, paths.reports())
    _say(f"atlas of {table['loss'].nunique()} losses: {page}, and the numbers in {page.with_suffix('.csv')}")


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
    _say(f"{target}: {heard.samples.shape[1] / heard.rate:.1f} s, {channels}, by {denoiser.about}")
    if down > 0:
        _say(f"turned down by {down:.1f} dB, so that it does not clip")
    if heard.rate > SAMPLE_RATE:
        _say(f"models hear up to {SAMPLE_RATE // 2000} kHz: what was above is gone")


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
    with _bar("denoising") as show:
        analysis, where = ranking.analyse(results), pick_device(device)
        sections = page.through_all(tracker, results, analysis, heard, where, show)
    with console.status("drawing"):
        written = page.write_listen(source.name, whole, heard, sections, paths.reports())
    _say(f"{sum(len(own) for _, own in sections)} losses: {written}")


@app.command()
def ui(port: Annotated[int, typer.Option(min=1, max=65535)] = 5000, tracking_uri: TrackingUri = None) -> None:
    """Browse the runs in MLflow's own UI, on 127.0.0.1."""
    from harness.tracking import Tracker, serve

    serve(Tracker(tracking_uri), port, _say)


def main() -> None:
    """Entry point: bad input is one line and exit code 2, an interruption 130."""
    # Silenced before torch is imported: its profiler and its allocator print on every measurement.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        sys.exit(app(standalone_mode=False))
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except typer.Exit as finished:
        sys.exit(finished.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted; the same command goes on where this one stopped", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        # The parser's own errors (an unknown option, a number out of range) tell themselves by this method.
        if not hasattr(error, "format_message"):
            raise
        print(f"error: {' '.join(error.format_message().split())} See: harness --help", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
