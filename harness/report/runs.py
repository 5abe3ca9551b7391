"""Read finished runs from MLflow into tables; no other module of the report knows where results come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness import entrants, keys, losses, spec
from harness.entrants import Entrant
from harness.errors import UserError
from harness.metrics import METRICS
from harness.report import repeat, searched
from harness.report.blocks import AND, HEARD, named
from harness.report.searched import Found
from harness.tasks.task import SHOWN_SEED
from harness.tracking import SETTLED, Tracker, made_at, one_of_each

if TYPE_CHECKING:
    from mlflow.entities import Run


TRAINING_LOSS, WEIGHTS = "loss in training", "half the sum of squared weights"
COLUMNS = {
    "runs": "run_id task corpus model protocol loss weighting role tuning seed state reason stale device commit updates "
    "lr params targets studies_read losses_read preliminary variant parent experiment command study asked made void raced "
    "frozen_of",
    "scores": "run_id test_set item cluster input_snr noise speaker floored unasked",
    "curves": "run_id metric step seconds value",
    "tuning": "protocol loss lr score state chosen edge searched",
    "throughput": "loss device threads dtype loss_ms loss_ms_iqr ratio_to_mse step_ms updates_per_s audio_s_per_s peak_mib "
    "model step_ratio made",
    "audio": "run_id item kind path worst",
    "fitting": "run_id metric step value",
    "summaries": "run_id test_set metric value",
    "embeddings": "run_id path",
}
ENTRANT = ("protocol", "loss", "weighting")  # tags of what takes part
TESTED = ("matched", "mismatched", "real_words", HEARD)
STRINGS = {"item": str, "cluster": str, "speaker": str, "noise": str, "floored": str, "unasked": str}
NUMBERS = (*METRICS, "input_snr", "label", "said", "confidence", "count_error")  # of which an item may have none


@dataclass
class Results:
    """Everything a report is made from.

    runs: one row per selected test run (confirm runs and controls). Columns: run_id, task, corpus, model, protocol (hash),
        loss (as shown), weighting, role ("loss", "reference", "control"), tuning ("tuned", "shipped" or ""),
        seed (Int64, NA for controls), state ("finished", "diverged"), reason (why it diverged), stale (bool: made by an older
        version of the loss or of the harness), device, commit, updates, lr, params, targets (tuple of metric names the
        loss optimises directly), studies_read and losses_read (how many studies, and losses, have read the test list), preliminary
        (bool: quick item counts), variant (what tells what the loss names, a trained network, from others of that name), parent
        (run id), experiment (id), command (that repeats the loss's runs, "" where not known), study (the command that repeats
        all that it was compared with), asked (the name of the study that asked for it), made ("2026-11-25T18:41:07", UTC), void
        (share of the training items that the loss could say nothing of, NaN where that cannot be), raced (of a loss that a race
        has stopped: after how many `seeds`, `of` how many, with which `looks`; else None), frozen_of (of weights that are frozen:
        the weightings that ended on them; else "").
    scores: one row per run x test item. Columns: run_id, test_set ("matched", "mismatched"), item, cluster (prompt name),
        input_snr (dB), noise, speaker, one float column per metric of `harness.metrics.METRICS` that was measured (NaN = missing
        because of the reference), floored and unasked (names, separated by spaces, of the metrics that fell back to their
        floor, and of those that this item was not judged by).
        Diverged runs have no rows. Of classifiers also label and said (classes, by number; NaN where the output was not
        finite) and confidence (in what is said).
    curves: run_id, metric, step (update), seconds (training seconds so far), value. Validation metrics over training.
    tuning: one row per tuning trial. Columns: protocol, loss, lr, score (selection score, NaN if diverged), state, chosen (bool),
        edge (bool: the chosen rate lies on the edge of what was tried), searched (bool: drawn by a search, with whatever else it
        sets), and the validation mean of each metric.
    throughput: loss, device, threads, dtype, loss_ms, loss_ms_iqr, ratio_to_mse, step_ms, updates_per_s, audio_s_per_s, peak_mib,
        model (in whose training the step was measured), step_ratio (to the step under the task's reference loss), made (UTC).
    audio: run_id, item, kind ("noisy", "clean", "estimate"), path (local wav file), for three fixed items per run, and worst
        (bool: the item is one of those on which the loss did worst).
    notes: protocol -> sentences to print on its page (attribution of the corpora, flaws of the recordings).
    fitting: run_id, metric, step, value: the loss in training (mean over the updates since the row before) and the weights'
        penalty, of the runs that were judged on what training hears too.
    identities: protocol -> groups of losses (as shown) that a study said must tie.
    summaries: one row per run, test set and metric that only a whole set has: run_id, test_set, metric, value.
    embeddings: run_id, path (a local npz file: item (ids), embedding (items, dim)), for one seed of each loss that has them.
    classes: protocol -> names of the classes, in the order of their labels.
    search: weights of combinations, and what was searched: see `searched.Found`.
    ui: address of MLflow's UI over the store.
    shorter: protocol -> those that are the same but for fewer confirming updates, the longest first.
    equal_time: the same with the runs that had equal time instead of equal updates; None where there are none.
    imbalance: protocol -> how many times rarer the last class is than the first in training; 1 where all are as frequent.
    gates: protocol -> what the unprocessed test set of a published corpus has, and whether that is what is published.
    """

    runs: pd.DataFrame
    scores: pd.DataFrame
    curves: pd.DataFrame
    tuning: pd.DataFrame
    throughput: pd.DataFrame
    audio: pd.DataFrame
    notes: dict[str, list[str]]
    fitting: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS["fitting"].split()))
    identities: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    summaries: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS["summaries"].split()))
    embeddings: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS["embeddings"].split()))
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    imbalance: dict[str, float] = field(default_factory=dict)
    search: Found = field(default_factory=Found)
    gates: dict[str, str] = field(default_factory=dict)
    ui: str = repeat.LOCAL
    shorter: dict[str, tuple[str, ...]] = field(default_factory=dict)
    equal_time: Results | None = None


def read(tracker: Tracker) -> Results:
    """All results of a store. A loss is represented by the runs of the setting that its parent run says was selected."""
    runs = [run for run in tracker.search() if run.data.tags.get("phase")]
    selected = {
        r.info.run_id: json.loads(r.data.tags.get("selected", "{}")) for r in runs if r.data.tags["phase"] == "parent"
    }
    raced = {r.info.run_id: json.loads(r.data.tags["raced"]) for r in runs if "raced" in r.data.tags}
    frozen = _frozen(runs)
    settled = one_of_each(run for run in runs if run.data.tags.get("state") in SETTLED)
    readers = _readers(settled)
    tested = [run for run in settled if run.data.tags["phase"] == "control" or _is_selected(run, selected, "confirm")]
    specs = _specs(tracker, tested)
    protocols = {run.data.tags["protocol"]: specs[_parent(run)] for run in reversed(tested)}
    finished = [run for run in tested if run.data.tags["state"] == "finished"]
    scores = _tables("scores", tracker, finished, "scores.csv")
    heard = set(scores.loc[scores["test_set"] == HEARD, "run_id"])
    judged = _runs(tested, selected, readers, specs, raced, frozen)
    names = _names(judged)
    earlier = _earlier(runs, judged, names)
    results = Results(
        runs=judged,
        scores=scores,
        curves=_curves(tracker, finished),
        tuning=_frame("tuning", _tuning([run for run in settled if _parent(run) not in earlier], selected, names)),
        throughput=_throughput(settled),
        audio=_frame("audio", _audio(tracker, finished)),
        notes={name: content.get("notes", []) for name, content in protocols.items()},
        fitting=_fitting(tracker, [run for run in finished if run.info.run_id in heard]),
        identities=_identities(runs),
        summaries=_frame("summaries", _summaries(finished)),
        embeddings=_frame("embeddings", _embeddings(tracker, finished)),
        classes={name: tuple(content.get("classes", ())) for name, content in protocols.items()},
        imbalance={name: _imbalance(content) for name, content in protocols.items()},
        search=searched.read(tracker, [run for run in runs if not {run.info.run_id, _parent(run)} & earlier], finished),
        gates={r.data.tags["protocol"]: r.data.tags["gate"] for r in tested if "gate" in r.data.tags},
        ui=repeat.ui(tracker.uri),
        shorter=_shorter({name: content["protocol"] for name, content in protocols.items() if "protocol" in content}),
    )
    timed = [run for run in settled if _is_selected(run, selected, "equal_time")]
    if timed:
        timed = [*(run for run in tested if run.data.tags["phase"] == "control"), *timed]
        ended = [run for run in timed if run.data.tags["state"] == "finished"]
        results.equal_time = replace(
            results,
            runs=_runs(timed, selected, readers, specs | _specs(tracker, timed), {}, frozen),
            scores=_tables("scores", tracker, ended, "scores.csv"),
            curves=_curves(tracker, ended),
        )
    return results


def _shorter(protocols: dict[str, dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    """See `Results.shorter`. protocols: their contents."""
    updates = {name: int(content["updates"]["confirm"]) for name, content in protocols.items()}
    rest = {name: {key: own for key, own in content.items() if key != "updates"} for name, content in protocols.items()}
    longest = sorted(updates, key=lambda name: -updates[name])
    return {
        name: tuple(one for one in longest if updates[one] < updates[name] and rest[one] == rest[name])
        for name in protocols
    }


def _parent(run: Run) -> str:
    return run.data.tags.get("mlflow.parentRunId", "")


def _specs(tracker: Tracker, tested: list[Run]) -> dict[str, dict[str, Any]]:
    """Parent run -> what the last of its runs followed from: of a study that was given more seeds, all of them."""
    last = {_parent(run): run.info.run_id for run in tested}
    return {parent: tracker.read_json(run, "spec.json") or {} for parent, run in last.items()}


def _runs(
    tested: list[Run],
    selected: dict[str, Any],
    readers: dict[str, tuple[int, int]],
    specs: dict[str, dict[str, Any]],
    raced: dict[str, dict[str, Any]],
    frozen: dict[tuple[str, ...], str],
) -> pd.DataFrame:
    rows = [
        _row(run, selected, readers, specs[_parent(run)])
        | {"raced": raced.get(_parent(run)), "frozen_of": frozen.get(_entrant(run), "")}
        for run in tested
    ]
    return _frame("runs", rows).astype({"seed": "Int64"})


def _entrant(run: Run) -> tuple[str, ...]:
    return tuple(run.data.tags[name] for name in ENTRANT)


def _frozen(runs: list[Run]) -> dict[tuple[str, ...], str]:
    """Protocol, loss and weighting of weights that are frozen -> all weightings that ended on them: "dwa and gradnorm"."""
    ends = {_entrant(run): json.loads(run.data.tags["frozen"])["weights"] for run in runs if "frozen" in run.data.tags}
    found: dict[tuple[str, ...], list[str]] = {}
    for (protocol, loss, weighting), weights in ends.items():
        entrant = entrants.frozen(Entrant(loss, weighting), weights)
        found.setdefault((protocol, loss, entrant.weighting), []).append(weighting)
    return {key: AND.join(sorted(learned)) for key, learned in found.items()}


def _names(judged: pd.DataFrame) -> dict[str, str]:
    """Parent -> name, of the losses that are shown."""
    if judged.empty:
        return {}
    shown = named(judged)
    return dict(zip(shown["parent"], shown["name"], strict=True))


def _earlier(runs: list[Run], judged: pd.DataFrame, names: dict[str, str]) -> set[str]:
    """Parents of losses of which a newer form is shown, but not this one."""
    shown = judged[judged["parent"].isin(names)]
    newer = set(zip(shown["protocol"], shown["loss"], shown["weighting"], strict=True))
    parents = {r.info.run_id: r.data.tags for r in runs if r.data.tags["phase"] == "parent"}
    return {
        run for run, tags in parents.items() if run not in names and tuple(tags.get(name) for name in ENTRANT) in newer
    }


def _identities(runs: list[Run]) -> dict[str, list[tuple[str, ...]]]:
    groups: dict[str, dict[tuple[str, ...], None]] = {}
    for run in runs:
        for group in json.loads(run.data.tags.get("identities", "[]")):
            groups.setdefault(run.data.tags["protocol"], {})[tuple(group)] = None
    return {protocol: list(own) for protocol, own in groups.items()}


def _frame(name: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=COLUMNS[name].split())


def _is_selected(run: Run, selected: dict[str, Any], phase: str) -> bool:
    """Whether a run of that phase has the setting that its parent says was selected: the rate, and all that a search chose."""
    choice = selected.get(_parent(run), {})
    values = {"lr": choice.get("lr"), **choice.get("values", {})}
    return run.data.tags["phase"] == phase and all(_same(run.data.params.get(k), v) for k, v in values.items())


def _same(a: Any, b: Any) -> bool:
    return a is not None and b is not None and f"{float(a):.6g}" == f"{float(b):.6g}"


def _readers(settled: list[Run]) -> dict[str, tuple[int, int]]:
    """Pair of test lists -> how many studies, and how many losses of theirs, have read it by a trained net."""
    read = pd.DataFrame(
        [
            (run.data.tags["test_list"], run.data.tags["study"], _parent(run))
            for run in settled
            if run.data.tags["phase"] in ("confirm", "equal_time")
        ],
        columns=["list", "study", "parent"],
    )
    counts = read.groupby("list").nunique()
    return {str(name): (int(row["study"]), int(row["parent"])) for name, row in counts.iterrows()}


def _stale(tags: dict[str, str]) -> bool:
    """Whether an older version of the harness, or of one of its losses, made the run."""
    known = losses.all_losses()
    versions = json.loads(tags.get("loss_versions") or "{}")
    return tags.get("result_version") != str(keys.RESULT_VERSION) or any(
        name in known and known[name].version != v for name, v in versions.items()
    )


def _few_items(tags: Mapping[str, str], study: Mapping[str, Any]) -> bool:
    """Whether the run was judged on fewer items than a full study asks for. Its tag says so of fewer seeds too, and stands where
    the items of the study, or the folder that its corpus was, are not known here."""
    try:
        full = spec.rule_of(study["task"], study["corpus"]).model_fields["items"].get_default(call_default_factory=True)
        items = study["scenes"]["items"]
        return any((items.get(name) or 0) < full.of(name) for name in ("validation", "matched", "mismatched"))
    except (UserError, KeyError, AttributeError):
        return tags["preliminary"] == "True"


def _row(
    run: Run, selected: dict[str, Any], readers: dict[str, tuple[int, int]], content: dict[str, Any]
) -> dict[str, Any]:
    tags, metrics = run.data.tags, run.data.metrics
    control = tags["phase"] == "control"
    lr = None if control else float(run.data.params["lr"])
    return {
        "run_id": run.info.run_id,
        **{
            name: tags[name]
            for name in ("task", "corpus", "model", "protocol", "loss", "weighting", "state", "device", "commit")
        },
        "role": "control" if control else "reference" if tags["loss"] == tags["reference"] else "loss",
        "tuning": "" if control else selected[_parent(run)]["tuning"],
        "seed": None if control else int(tags["seed"]),
        "reason": tags.get("reason", ""),
        "stale": _stale(tags),
        "updates": metrics.get("updates"),
        "lr": lr,
        "params": metrics.get("parameters"),
        "targets": tuple(tags["targets"].split()),
        **dict(zip(("studies_read", "losses_read"), readers.get(tags["test_list"], (0, 0)), strict=True)),
        "preliminary": _few_items(tags, content.get("study", {})),
        "variant": " ".join(text[:6] for _, text in sorted(content.get("loss", {}).get("named", {}).items())),
        "parent": _parent(run),
        "experiment": run.info.experiment_id,
        "command": "" if control else repeat.command(tags["loss"], tags["weighting"], content.get("study", {})),
        "study": "" if control else repeat.whole(tags["loss"], tags["weighting"], content.get("study", {})),
        "asked": content.get("study", {}).get("name", ""),
        "made": made_at(run),
        "void": max((value for name, value in metrics.items() if name.startswith("void/")), default=None),
    }


def _tables(name: str, tracker: Tracker, runs: list[Run], file: str) -> pd.DataFrame:
    parts = []
    for run in runs:
        path = tracker.artifact(run.info.run_id, file)
        if path is not None:
            part = pd.read_csv(path, dtype=STRINGS, keep_default_na=False, na_values={m: [""] for m in NUMBERS})
            parts.append(part.assign(run_id=run.info.run_id))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS[name].split())


def _curves(tracker: Tracker, runs: list[Run]) -> pd.DataFrame:
    wide = _tables("curves", tracker, [run for run in runs if run.data.tags["phase"] != "control"], "validation.csv")
    if wide.empty:
        return pd.DataFrame(columns=COLUMNS["curves"].split())
    return wide.melt(["run_id", "step", "seconds"], var_name="metric", value_name="value")


def _fitting(tracker: Tracker, runs: list[Run]) -> pd.DataFrame:
    parts = []
    for table in (_tables("fitting", tracker, [run], "training.csv") for run in runs):
        if "penalty/l2" not in table:  # a control trains nothing
            continue
        penalty = pd.to_numeric(table["penalty/l2"], errors="coerce")  # known after some updates only
        known = penalty.notna()
        since = known.shift(fill_value=False).cumsum()  # the updates up to and including each known one
        loss = table.groupby(since)["total"].transform("mean")
        shown = table.assign(**{TRAINING_LOSS: loss, WEIGHTS: penalty})[known]
        parts.append(shown.melt(["run_id", "step"], [TRAINING_LOSS, WEIGHTS], "metric", "value"))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS["fitting"].split())


def _ambiguous(trials: list[Run]) -> set[tuple[str, str]]:
    """Protocol and loss of those that are told apart by their weighting, as `blocks.named` tells them once they are judged."""
    found: dict[tuple[str, str], set[str]] = {}
    for run in trials:
        found.setdefault((run.data.tags["protocol"], run.data.tags["loss"]), set()).add(run.data.tags["weighting"])
    return {key for key, weightings in found.items() if len(weightings) > 1}


def _tuning(settled: list[Run], selected: dict[str, Any], names: dict[str, str]) -> list[dict[str, Any]]:
    trials = [run for run in settled if run.data.tags["phase"] == "tune"]
    ambiguous = _ambiguous(trials)
    rows = []
    for run in trials:
        choice = selected.get(_parent(run), {})
        lr = float(run.data.params["lr"])
        protocol, loss = run.data.tags["protocol"], run.data.tags["loss"]
        unjudged = f"{loss} ({run.data.tags['weighting']})" if (protocol, loss) in ambiguous else loss
        chosen = choice.get("tuning") == "tuned" and _same(lr, choice.get("lr"))
        tried = [float(rate) for rate in choice.get("scores", {})]
        means = {name: run.data.metrics.get(f"validation/{name}") for name in METRICS}
        rows.append(
            {
                "protocol": protocol,
                "loss": names.get(_parent(run), unjudged),
                "lr": lr,
                "score": run.data.metrics.get("validation/score") if run.data.tags["state"] == "finished" else None,
                "state": run.data.tags["state"],
                "chosen": chosen,
                "edge": chosen and bool(tried) and (_same(lr, min(tried)) or _same(lr, max(tried))),
                "searched": "values" in choice,
                **{name: value for name, value in means.items() if value is not None},
            }
        )
    return rows


def _throughput(settled: list[Run]) -> pd.DataFrame:
    """The newest measurement of each loss with each model on each device."""
    rows = {}
    for run in (run for run in settled if run.data.tags["phase"] == "throughput"):
        row = {**run.data.params, **run.data.metrics, "model": run.data.tags["model"], "made": made_at(run)}
        rows[tuple(row[name] for name in ("loss", "model", "device", "threads", "dtype"))] = row
    return _frame("throughput", list(rows.values())).reindex(columns=COLUMNS["throughput"].split())


def _audio(tracker: Tracker, finished: list[Run]) -> list[dict[str, Any]]:
    """The listening items of the first seed of each loss, and of the controls."""
    rows, heard = [], set()
    for run in finished:
        key = (run.data.tags["protocol"], run.data.tags["loss"])
        folder = tracker.artifact(run.info.run_id, "audio") if key not in heard else None
        heard.add(key)
        for path in sorted(folder.glob("**/*.wav")) if folder is not None else []:
            item, kind = path.stem.rsplit(".", 1)
            row = {"run_id": run.info.run_id, "item": item.replace("_", "/", 1), "kind": kind, "path": str(path)}
            rows.append(row | {"worst": path.parent.name == "worst"})
    return rows


def _summaries(finished: list[Run]) -> list[dict[str, Any]]:
    """What was logged of a whole test set and is no mean over its items."""
    return [
        {"run_id": run.info.run_id, "test_set": test_set, "metric": metric, "value": value}
        for run in finished
        for name, value in run.data.metrics.items()
        for test_set, _, metric in [name.partition("/")]
        if test_set in TESTED and metric not in METRICS
    ]


def _embeddings(tracker: Tracker, finished: list[Run]) -> list[dict[str, Any]]:
    may = [run.info.run_id for run in finished if run.data.tags["seed"] == str(SHOWN_SEED)]
    paths = {run: tracker.artifact(run, "embeddings.npz") for run in may}
    return [{"run_id": run, "path": str(path)} for run, path in paths.items() if path is not None]


def _imbalance(content: dict[str, Any]) -> float:
    return float(content.get("study", {}).get("scenes", {}).get("imbalance", 1.0))
