"""What an export may hold. It comes from elsewhere: all of it is looked at before any of it is taken over, since identities and
names become folders, files and questions to a database here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container
from typing import Annotated, Any

import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from harness import keys
from harness.errors import UserError
from harness.tracking import INTERNAL, SETTLED

PHASES = ("control", "tune", "confirm", "equal_time", "throughput")
CURVES = ("training.csv", "validation.csv")
SHARED = ("study", "notes", "classes", "controls")  # of a spec: the same for many runs, and so kept once
WORDS = (
    "test_set",
    "item",
    "cluster",
    "noise",
    "speaker",
    "floored",
    "unasked",
)  # columns of scores.csv that hold text
ASKED = ("task", "corpus", "model", "protocol", "loss", "weighting", "device", "commit", "reference", "targets")
NEEDED = dict.fromkeys(PHASES, (*ASKED, "study", "preliminary", "seed")) | {"throughput": ("loss", "model")}
NEEDED_OF_PARENT = ("protocol", "loss", "weighting")
MEASURED = ("loss", "device", "threads", "dtype")  # what tells measurements of throughput apart
ENTRY = {"identity": "str", "file": "str", "metric": "str", "step": "number", "seconds": "number", "value": "number"}
SAID = 200  # characters of a fault that are quoted


def _path_like(name: str) -> str:
    """A name that MLflow takes: it keeps metrics in files of their names, on some stores."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("must be no path")
    return name


def _own(name: str) -> str:
    if name.startswith(INTERNAL):
        raise ValueError("is set by MLflow alone")
    return name


def _json(kind: type) -> Any:
    def check(text: str) -> str:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, kind):
            raise ValueError(f"must be a JSON {'object' if kind is dict else 'list'}")
        return text

    return AfterValidator(check)


Identity = Annotated[str, Field(pattern=keys.IDENTITY)]
Line = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]  # it is printed, and must move no cursor
Text = Annotated[str, Field(max_length=8000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]
Name = Annotated[str, Field(max_length=250, pattern=r"^[\w./ :-]+$"), AfterValidator(_path_like)]
Tag = Annotated[Name, AfterValidator(_own)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0, lt=2**63)]


class _Told(BaseModel):
    """Types are as written: nothing is turned from text into a number. Keys that are not known do no harm."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, protected_namespaces=())


class _Selected(_Told):
    lr: Finite
    tuning: Annotated[str, Field(pattern="^(tuned|shipped)$")]
    scores: dict[str, float | None] = {}
    values: dict[str, Finite] = {}


class _Spec(_Told):
    """What a run followed from."""

    protocol_digest: Identity
    loss: dict[str, Any]
    phase: str
    seed: Whole | None
    lr: Finite | None
    tuned: dict[str, Finite] = {}
    study: str | None = None
    notes: str | None = None
    classes: str | None = None
    controls: str | None = None


class _Run(_Told):
    experiment: Annotated[str, Field(max_length=100, pattern=r"^\w[\w-]*$")]
    title: Line
    made: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$")]
    parent: Identity | None
    tags: dict[Tag, Text]
    params: dict[Name, Text]
    metrics: dict[Name, float]
    spec: _Spec | None


class _Parent(_Told):
    experiment: Annotated[str, Field(max_length=100, pattern=r"^\w[\w-]*$")]
    name: Line
    tags: dict[Tag, Text]
    importance: dict[str, float] | None = None


class _Updates(_Told):
    confirm: Whole


class _Protocol(_Told):
    updates: _Updates


class _Contents(_Told):
    protocols: dict[Identity, _Protocol]
    shared: dict[str, Any]
    parents: dict[Identity, _Parent]
    runs: list[_Run]


class _Decided(_Told):
    """Tags that hold JSON, where there are any."""

    identities: Annotated[str, _json(list)] | None = None
    loss_versions: Annotated[str, _json(dict)] | None = None
    space: Annotated[str, _json(dict)] | None = None
    frozen: Annotated[str, _json(dict)] | None = None
    equal_time: Annotated[str, _json(dict)] | None = None
    raced: Annotated[str, _json(dict)] | None = None


def check(data: dict[str, Any]) -> None:
    """UserError that names the first part of `runs.json` that is not as `harness export` writes it."""
    _fits(_Contents, data, "")
    for name, protocol in data["protocols"].items():
        _check_hash(f"protocols.{name}", protocol)
    for name, parent in data["parents"].items():
        _check_tags(f"parents.{name}.tags", parent["tags"], NEEDED_OF_PARENT)
        if parent["tags"].get("identity") != name:
            raise _fault(f"parents.{name}.tags.identity", f"must be {name}")
        if "selected" in parent["tags"]:
            _check_selected(f"parents.{name}.tags.selected", parent["tags"]["selected"])
    for place, row in enumerate(data["runs"]):
        _check_run(f"runs.{place}", row, data)
    often = Counter(row["tags"]["identity"] for row in data["runs"])
    if twice := [name for name, count in often.items() if count > 1]:
        raise _fault("runs", f"{twice[0]} is there twice")


def _check_run(where: str, row: dict[str, Any], data: dict[str, Any]) -> None:
    tags, params, content = row["tags"], row["params"], row["spec"]
    _check_choice(f"{where}.tags.phase", tags.get("phase"), PHASES)
    _check_choice(f"{where}.tags.state", tags.get("state"), SETTLED)
    _fits(_Identified, tags, f"{where}.tags")
    _check_tags(f"{where}.tags", tags, NEEDED[tags["phase"]])
    if row["parent"] is not None and row["parent"] not in data["parents"]:
        raise _fault(f"{where}.parent", f"{row['parent']} is not among the parents")
    if tags["phase"] == "throughput":
        _check_keys(f"{where}.params", params, MEASURED)
    elif tags["phase"] != "control":
        _check_number(f"{where}.params.lr", params.get("lr"), float)
        _check_number(f"{where}.tags.seed", tags["seed"], int)
    if content is None:
        return
    if content["protocol_digest"] not in data["protocols"]:
        raise _fault(f"{where}.spec.protocol_digest", f"{content['protocol_digest']} is not among the protocols")
    _check_hash(f"{where}.spec.loss", content["loss"])
    for name in SHARED:
        if name in content and content[name] not in data["shared"]:
            raise _fault(f"{where}.spec.{name}", "is not among what is shared")
    said = {"phase": tags["phase"], "protocol_digest": tags["protocol"]}
    for name, value in said.items():
        if content[name] != value:
            raise _fault(f"{where}.spec.{name}", f"is not what the tags say, {value[:SAID]!r}")


class _Identified(_Told):
    identity: Identity


def _check_tags(where: str, tags: dict[str, str], needed: tuple[str, ...]) -> None:
    _check_keys(where, tags, needed)
    _fits(_Decided, tags, where)


def _check_selected(where: str, text: str) -> None:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    _fits(_Selected, content, where)


def _check_hash(where: str, content: dict[str, Any]) -> None:
    try:
        keys.digest(content)
    except (ValueError, RecursionError):
        raise _fault(where, "holds what has no hash: a number that is not finite, or what is nested too deep") from None


def _check_keys(where: str, held: Container[Any], needed: tuple[str, ...]) -> None:
    if missing := [name for name in needed if name not in held]:
        raise _fault(f"{where}.{missing[0]}", "is missing")


def _check_choice(where: str, value: Any, among: tuple[str, ...]) -> None:
    if value not in among:
        raise _fault(where, f"must be one of {', '.join(among)}, not {str(value)[:SAID]!r}")


def _check_number(where: str, text: str | None, kind: type) -> None:
    try:
        kind(text)
    except (TypeError, ValueError, OverflowError):
        raise _fault(where, f"must be a number, not {str(text)[:SAID]!r}") from None


def check_scores(table: pd.DataFrame) -> None:
    """UserError where a table of scores has columns that `harness export` does not write, or others in them than it does."""
    if table.empty:
        return
    _check_keys("scores.parquet", list(table), ("identity", "test_set", "item", "cluster"))
    for name in table:
        words = name in ("identity", *WORDS)
        if not words:
            _fits(_Named, {"name": name}, "scores.parquet")
        _check_column("scores.parquet", table, str(name), "str" if words else "number")


def check_curves(table: pd.DataFrame) -> None:
    """The same of a table of curves: each is of a known file, each metric once at each step."""
    if table.empty:
        return
    _check_keys("curves.parquet", list(table), tuple(ENTRY))
    for name, kind in ENTRY.items():
        _check_column("curves.parquet", table, name, kind)
        if name != "value" and table[name].isna().any():
            raise _fault(f"curves.parquet.{name}", "is missing in some rows")
    for file in table["file"].unique():
        _check_choice("curves.parquet.file", file, CURVES)
    for metric in table["metric"].unique():
        _fits(_Named, {"name": metric}, "curves.parquet.metric")
    if table.duplicated(["identity", "file", "metric", "step", "seconds"]).any():
        raise _fault("curves.parquet", "a metric is there twice at one step")


class _Named(_Told):
    name: Name


def _check_column(where: str, table: pd.DataFrame, name: str, kind: str) -> None:
    column = table[name]
    right = pd.api.types.is_string_dtype if kind == "str" else pd.api.types.is_numeric_dtype
    if not (right(column) or column.isna().all()):
        raise _fault(f"{where}.{name}", f"must be {'text' if kind == 'str' else 'numbers'}")
    if kind == "str":
        try:
            column.dropna().tolist()
        except Exception:  # bytes are made text of only now, by readers that raise what they like
            raise _fault(f"{where}.{name}", "must be text") from None


def _fits(model: type[BaseModel], data: Any, where: str) -> None:
    try:
        model.model_validate(data)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(str(part)[:SAID] for part in ((where,) if where else ()) + fault["loc"]) or "runs.json"
        said = "" if fault["type"] == "missing" else f", not {repr(fault['input'])[:SAID]}"
        raise _fault(place, fault["msg"].removeprefix("Value error, ") + said) from None


def _fault(where: str, what: str) -> UserError:
    return UserError(f"{where}: {what}; export it again")
