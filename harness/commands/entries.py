"""What is registered: losses and their settings, a user's own, the network of deep features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from harness.commands import terminal
from harness.commands.options import DataDir, Json, Plugin

app = typer.Typer()


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
    terminal.console.print(table)
    terminal.say("ranges of the settings, papers, families and versions: harness losses --json")
    for what, names in catalogue.others().items():
        terminal.say(f"{what}: {', '.join(names)}")


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
                terminal.console.print(line, style="red", markup=False, soft_wrap=True)
        terminal.say(f"{name}: {passed} checks hold{conformance.without_gpu()}")
    if failed:
        raise typer.Exit(1)


@app.command()
def features(data_dir: DataDir = None) -> None:
    """Train the network of deep_feature, unless it is there, and say how often it is right. A study does so by itself."""
    from harness import features as made
    from harness.bars import DataBar
    from harness.models.features import Recipe

    recipe = Recipe()
    with DataBar(terminal.console) as bar:
        accuracy = made.made(recipe, data_dir, terminal.say, bar)["accuracy"]
    right = ", ".join(f"{100 * share:.0f} % of {task}" for task, share in accuracy.items())
    terminal.say(f"{recipe.checkpoint}: right in validation on {right}")
