"""Options that several commands share, and the study that they name."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.commands import terminal

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
Storage = Annotated[
    str | None, typer.Option(envvar="HARNESS_STORAGE", help="Optuna storage URL; default: runs/optuna.db.")
]
TrackingUri = Annotated[
    str | None,
    typer.Option(envvar="HARNESS_TRACKING_URI", help="MLflow tracking URI; default: runs/mlflow.db."),
]
MaxHours = Annotated[
    float | None, typer.Option(min=0.001, help="Stop cleanly after so many hours and say what remains.")
]
EqualTime = Annotated[
    bool | None, typer.Option("--equal-time", help="Confirm once more, each loss in the time that the reference takes.")
]
Racing = Annotated[bool | None, typer.Option("--racing", help="Give no more seeds to a loss that is clearly apart.")]
Controls = Annotated[
    bool | None, typer.Option("--controls/--no-controls", help="Train what stands beside combinations of losses.")
]
Source = Annotated[Path, typer.Argument(metavar="IN", help="A recording: any rate, length and number of channels.")]
Scale = Annotated[bool, typer.Option("--scale", help="Measure the bookkeeping of many trials instead.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load(
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
    max_hours: MaxHours = None, equal_time: EqualTime = None, racing: Racing = None, controls: Controls = None,
) -> tuple[Any, Any]:  # fmt: skip
    """The study and how it is to be run: the parameters that `study`, `plan` and `worker` share."""
    loaded = load(
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
        racing=racing,
        controls=controls,
    )
    from harness.workers import Options

    return loaded, Options(device, workers, data_dir, storage, tracking_uri, tuple(plugin or ()), max_hours)


def of_a_study(body: Callable[[Any, Any], None], default: str | None = None) -> Callable[..., None]:
    """A command with the parameters of `_asked`, whose body gets the study and its options. default: the study without a name."""

    @functools.wraps(body)
    def command(**given: Any) -> None:
        body(*_asked(**{**given, "name": given.get("name") or default}))

    signature = inspect.signature(_asked, eval_str=True).replace(return_annotation=None)
    command.__signature__ = signature  # type: ignore[attr-defined]
    # Not as text: that would be looked up where the body stands.
    command.__annotations__ = {name: asked.annotation for name, asked in signature.parameters.items()}
    return command


def networks(expressions: list[str], corpus: str, options: Any, say: Callable[[str], None] = terminal.say) -> None:
    """Train, before workers would all at once, what these losses compare features with."""
    from harness import features
    from harness.bars import DataBar
    from harness.models.features import Recipe

    with DataBar(terminal.console) as bar:
        features.ensure(expressions, options.data_dir if corpus == Recipe.speech else None, say, bar)
