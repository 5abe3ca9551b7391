"""Results that move between machines: finished runs as a folder of Parquet and JSON, small enough for a repository.

`runs.json`: protocols, the parents with what was selected, and the runs with their tags, parameters, last metric values and
spec, of which what many runs share is kept once. `scores.parquet`: every per-item score. `curves.parquet`: training and
validation curves. Sound, pictures and weights stay behind. The same runs give the same bytes, exported again or exported
from where they were imported.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness import contents, keys
from harness.contents import CURVES, PHASES, SHARED, WORDS
from harness.errors import UserError
from harness.outbox import Parent, Record
from harness.tracking import INTERNAL, MADE, SETTLED, Tracker, is_lost, made_at, one_of_each

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow.entities import Run

FORMAT = 2
FILES = ("runs.json", "scores.parquet", "curves.parquet")
IMPORTANCE = "importance.json"  # of what a search set, kept on the parent
DECIDED = ("space", "frozen", "equal_time", "raced")  # tags of a parent, taken over where it has none


def write(tracker: Tracker, where: str, folder: Path, show: Callable[[int, int], None]) -> int:
    """Export the settled runs that match an MLflow filter; returns how many. UserError for a bad filter or folder."""
    if folder.exists() and not (folder.is_dir() and {p.name for p in folder.iterdir()} <= set(FILES)):
        raise UserError(f"{str(folder)!r}: holds other things than an export; name a new folder")
    found = [run for run in _search(tracker, where) if run.data.tags.get("phase") in PHASES]
    found = one_of_each([run for run in found if run.data.tags.get("state") in SETTLED])
    if not found:
        raise UserError(f"no finished run matches {where!r}; an MLflow filter is, e.g., \"tags.loss = 'si_sdr'\"")
    parents = {run.info.run_id: run for run in tracker.search("tags.phase = 'parent'")}
    protocols: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    rows, scores, curves = [], [], []
    for done, run in enumerate(found):
        show(done, len(found))
        identity = run.data.tags["identity"]
        content = tracker.read_json(run.info.run_id, "spec.json")
        if content is not None:
            protocols[content["protocol_digest"]] = content.pop("protocol")
            content |= {name: _kept_once(shared, content[name]) for name in SHARED if name in content}
        rows.append(_row(tracker, run, parents, content))
        table = _csv(tracker, run, "scores.csv")
        scores += [table.assign(identity=identity)] if table is not None else []
        for name in CURVES:
            table = _csv(tracker, run, name)
            if table is not None:
                long = table.melt(["step", "seconds"], var_name="metric", value_name="value")
                curves.append(long.sort_values(["metric", "step"]).assign(identity=identity, file=name))
    shown = {row["parent"] for row in rows if row["parent"]}
    data = {
        "format": FORMAT,
        "protocols": protocols,
        "shared": shared,
        "parents": {
            p.data.tags["identity"]: _parent(tracker, p) for p in parents.values() if p.data.tags["identity"] in shown
        },
        "runs": rows,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as scratch:
        draft = Path(scratch) / "draft"
        draft.mkdir()
        (draft / "runs.json").write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
        _parquet(scores, draft / "scores.parquet")
        _parquet(curves, draft / "curves.parquet")
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    return len(found)


def read(tracker: Tracker, folder: Path, show: Callable[[int, int], None]) -> tuple[int, int, list[str]]:
    """Import what `write` wrote, here or in folders below: how many runs were new, how many known, and what to say about
    selections that differ.

    UserError where there is no export, or a run is not what its identity says.
    """
    made = known = 0
    notes: list[str] = []
    for export in exports(folder):
        data, scores, curves = _open(export)
        _check(data)
        here = _settled(tracker)
        new = [row for row in data["runs"] if row["tags"]["identity"] not in here]
        known += len(data["runs"]) - len(new)
        for done, row in enumerate(new):
            show(done, len(new))
            identity = row["tags"]["identity"]
            _restore(tracker, data, row, scores.get(identity), curves.get(identity))
        made += len(new)
        notes += _selected(tracker, data["parents"])
    return made, known, notes


def exports(folder: Path) -> list[Path]:
    """The folders that hold an export: this one, or those below it; this one where there is none, for its error."""
    if (folder / FILES[0]).is_file():
        return [folder]
    return sorted(path.parent for path in folder.rglob(FILES[0])) or [folder]


def _settled(tracker: Tracker) -> set[str]:
    return {run.data.tags.get("identity", "") for run in tracker.search() if run.data.tags.get("state") in SETTLED}


def _kept_once(shared: dict[str, Any], value: Any) -> str:
    key = keys.digest(value)
    shared[key] = value
    return key


def _search(tracker: Tracker, where: str) -> list[Run]:
    from mlflow.exceptions import MlflowException

    try:
        return tracker.search(where)
    except MlflowException as error:
        if is_lost(error):
            raise
        raise UserError(f"filter {where!r}: {' '.join(str(error).split())[:200]}") from error


def _row(tracker: Tracker, run: Run, parents: dict[str, Run], content: dict[str, Any] | None) -> dict[str, Any]:
    parent = parents.get(run.data.tags.get("mlflow.parentRunId", ""))
    return {
        "experiment": tracker.experiment_name(run.info.experiment_id),
        "title": run.info.run_name,
        "made": made_at(run),
        "parent": parent.data.tags["identity"] if parent is not None else None,
        "tags": _own(run.data.tags),
        "params": dict(run.data.params),
        "metrics": dict(run.data.metrics),
        "spec": content,
    }


def _own(tags: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in tags.items() if not name.startswith(INTERNAL) and name != MADE}


def _parent(tracker: Tracker, run: Run) -> dict[str, Any]:
    return {
        "experiment": tracker.experiment_name(run.info.experiment_id),
        "name": run.info.run_name,
        "tags": _own(run.data.tags),
        "importance": tracker.read_json(run.info.run_id, IMPORTANCE),
    }


def _csv(tracker: Tracker, run: Run, name: str) -> pd.DataFrame | None:
    path = tracker.artifact(run.info.run_id, name) if run.data.tags["phase"] != "throughput" else None
    if path is None:
        return None
    types = dict.fromkeys(WORDS, str)
    return pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""])


def _parquet(tables: list[pd.DataFrame], path: Path) -> None:
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"identity": pd.Series(dtype=str)})
    # An import leaves out what was not measured, and orders columns as it likes.
    kept = [name for name in table if name in ("identity", *WORDS) or table[name].notna().any()]
    order = sorted(kept, key=lambda name: (name != "identity", name))
    table = table[order]
    # What measured numbers have in common are the bytes of their exponents: laid side by side these take a fifth less.
    numbers = list(table.select_dtypes("float"))
    words = [name for name in table if name not in numbers]
    table.to_parquet(
        path,
        index=False,
        compression="zstd",
        compression_level=19,
        use_dictionary=words,
        use_byte_stream_split=numbers,
    )


def _open(folder: Path) -> tuple[dict[str, Any], dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"{str(folder)!r}: no {name}; give the folder that `harness export` wrote")
    try:
        data = json.loads((folder / "runs.json").read_text())
        scores, curves = (pd.read_parquet(folder / name) for name in FILES[1:])
    except Exception as error:  # of bytes from elsewhere, readers raise what they like
        raise UserError(f"{str(folder)!r}: damaged ({' '.join(str(error).split())[:160]}); export it again") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UserError(f"{str(folder)!r}: not written in format {FORMAT}; export it again with this version")
    try:
        contents.check(data)
        contents.check_scores(scores)
        contents.check_curves(curves)
    except UserError as fault:
        raise UserError(f"{str(folder)!r}: {fault}") from fault
    for row in data["runs"]:
        content = row["spec"] or {}
        content |= {name: data["shared"][content[name]] for name in SHARED if name in content}
    return data, _by_run(scores), _by_run(curves)


def _by_run(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(name): part for name, part in table.groupby("identity")} if len(table) else {}


def _check(data: dict[str, Any]) -> None:
    """Every trial is what its identity says: its protocol, loss, phase, seed and rate give the same hash here."""
    for name, protocol in data["protocols"].items():
        if keys.digest(protocol) != name:
            raise UserError(f"protocol {name}: its contents do not give that hash; export it again")
    for row in data["runs"]:
        content = row["spec"]
        if content is None:
            continue  # a throughput measurement
        tuned = content.get("tuned", {}) | ({} if content["lr"] is None else {"lr": content["lr"]})
        made = keys.identity(content["protocol_digest"], content["loss"], content["phase"], content["seed"], tuned)
        if made != row["tags"]["identity"]:
            raise UserError(f"run {row['title']!r}: its contents do not give its identity {row['tags']['identity']}")


def _restore(
    tracker: Tracker,
    data: dict[str, Any],
    row: dict[str, Any],
    scores: pd.DataFrame | None,
    curves: pd.DataFrame | None,
) -> None:
    parent = None
    if row["parent"]:
        about = data["parents"][row["parent"]]
        tags = {name: value for name, value in about["tags"].items() if name not in ("selected", "identity")}
        parent = Parent(about["name"], row["parent"], tags)
    tags = {name: value for name, value in row["tags"].items() if name not in ("state", "reason")}
    record = Record(tracker, row["experiment"], row["title"], parent, tags | {MADE: row["made"]}, row["params"])
    record.log([(name, value, 0) for name, value in row["metrics"].items()])
    with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
        folder = Path(scratch)
        if row["spec"] is not None:
            protocol = data["protocols"][row["spec"]["protocol_digest"]]
            (folder / "spec.json").write_text(json.dumps({**row["spec"], "protocol": protocol}, indent=1))
        if scores is not None:
            unmeasured = [name for name in scores.columns if name not in WORDS and scores[name].isna().all()]
            scores.drop(columns=["identity", *unmeasured]).to_csv(folder / "scores.csv", index=False)
        for name, long in curves.groupby("file") if curves is not None else []:
            wide = long.pivot(index=["step", "seconds"], columns="metric", values="value").reset_index()
            wide.to_csv(folder / str(name), index=False)
        record.close(row["tags"]["state"], folder, row["tags"].get("reason", ""))


def _selected(tracker: Tracker, parents: dict[str, Any]) -> list[str]:
    """Take over what was selected, parent by parent; what is to be said where it differs."""
    mine = {run.data.tags["identity"]: run for run in tracker.search("tags.phase = 'parent'")}
    said = [_select(tracker, mine[name], parent) for name, parent in parents.items() if name in mine]
    return [note for note in said if note]


def _select(tracker: Tracker, mine: Run, parent: dict[str, Any]) -> str:
    """Take over what was selected where nothing is selected here, or only a shipped rate; what to say where it differs."""
    theirs = parent["tags"].get("selected")
    if theirs is None:
        return ""
    tags, run = mine.data.tags, mine.info.run_id
    if decided := {name: parent["tags"][name] for name in DECIDED if name in parent["tags"] and name not in tags}:
        tracker.tag(run, **decided)
    if parent.get("importance") and tracker.read_json(run, IMPORTANCE) is None:
        tracker.attach(run, IMPORTANCE, parent["importance"])
    ours = json.loads(tags["selected"]) if "selected" in tags else None
    if ours is None or (ours["tuning"] == "shipped" and json.loads(theirs)["tuning"] == "tuned"):
        tracker.tag(run, selected=theirs)
    elif ours["lr"] != json.loads(theirs)["lr"]:
        return f"{parent['name']}: lr {ours['lr']:.3g} stays selected here, the export selected {json.loads(theirs)['lr']:.3g}"
    return ""
