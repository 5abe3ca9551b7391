"""Exports from elsewhere: whatever they hold, they are taken or refused in one line, and nothing outside the store is touched."""

from __future__ import annotations

import copy
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import exchange, outbox, paths
from harness.errors import UserError
from harness.tracking import Tracker
from tests.conftest import blank
from tests.test_hostile import ANYTHING, NAMES
from tests.test_hostile import refused as taken_or_refused

PUBLISHED = paths.RESULTS / "runs" / "quick"
QUICK = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def quiet(done: int, of: int) -> None:
    pass


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    """One run of each kind of a published export, and its tables."""
    data = json.loads((PUBLISHED / "runs.json").read_text())
    throughput = json.loads((paths.RESULTS / "runs" / "throughput" / "runs.json").read_text())["runs"][:1]
    kinds = {row["tags"]["phase"]: row for row in data["runs"]}
    data["runs"] = [*kinds.values(), *throughput]
    for part in ("parents", "protocols", "shared"):
        told = json.dumps(data["runs"])
        data[part] = {name: value for name, value in data[part].items() if name in told}
    known = [row["tags"]["identity"] for row in data["runs"]]
    tables = {name: pd.read_parquet(PUBLISHED / name) for name in exchange.FILES[1:]}
    return {"runs.json": data} | {name: table[table["identity"].isin(known)] for name, table in tables.items()}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a store, beside which there is something to lose."""
    shutil.copytree(blank() / "runs", tmp_path / "home" / "runs")
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    for folder in (tmp_path, tmp_path / "home", tmp_path / "home" / "runs", tmp_path / "home" / "runs" / "outbox"):
        (folder / "precious").mkdir(parents=True)
        (folder / "precious" / "file").write_text("mine")
    return tmp_path


def fresh(place: Path) -> Tracker:
    """An empty store of a name that no connection is kept for."""
    path = place / "home" / "runs" / f"mlflow.db-{uuid.uuid4().hex}"
    shutil.copy(blank() / "runs" / "mlflow.db", path)
    return Tracker(f"sqlite:///{path}")


def export(export_: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "runs.json").write_text(json.dumps(export_["runs.json"]))
    for name in exchange.FILES[1:]:
        export_[name].to_parquet(folder / name, index=False)
    return folder


def held(place: Path) -> dict[str, bytes]:
    """All files but those of the store and the export."""
    ours = [path for path in place.rglob("*") if path.is_file() and "artifacts" not in path.parts]
    return {
        str(path): path.read_bytes() for path in ours if "mlflow.db" not in path.name and "export" not in path.parts
    }


def changed(whole: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    other = copy.deepcopy(whole["runs.json"])
    change(other)
    return whole | {"runs.json": other}


def refused(place: Path, given_: dict[str, Any]) -> str:
    """The line by which an import is refused, of which nothing was taken."""
    before, tracker = held(place), Tracker()
    with pytest.raises(UserError) as error:
        exchange.read(tracker, export(given_, place / "export"), quiet)
    assert held(place) == before
    assert tracker.search() == []
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_the_harness_has_exported_is_taken(place: Path, small: dict[str, Any]) -> None:
    made, known, _ = exchange.read(Tracker(), export(small, place / "export"), quiet)
    assert (made, known) == (len(small["runs.json"]["runs"]), 0)


@pytest.mark.parametrize("name", ["../../precious/file", "{place}/precious/file", "scores.csv", "spec.json", "..", ""])
def test_a_curve_is_written_to_no_file_but_its_own(place: Path, small: dict[str, Any], name: str) -> None:
    table = small["curves.parquet"].assign(file=name.format(place=place))
    assert "curves.parquet.file: must be one of training.csv" in refused(place, small | {"curves.parquet": table})


@pytest.mark.parametrize(
    "name", ["../precious", "../../../precious", "/tmp", "..", ".", "", "0123456789AB", "' or '1", 7, None]
)
def test_an_identity_is_a_hash_and_leads_to_no_folder(place: Path, small: dict[str, Any], name: Any) -> None:
    def of_a_run(data: dict[str, Any]) -> None:
        data["runs"][-1]["tags"]["identity"] = name  # a measurement, which has no contents to be compared with

    def of_a_parent(data: dict[str, Any]) -> None:
        old = next(iter(data["parents"]))
        data["parents"][str(name)] = data["parents"].pop(old)
        data["parents"][str(name)]["tags"]["identity"] = name

    def to_a_parent(data: dict[str, Any]) -> None:
        data["runs"][0]["parent"] = name if name is not None else "0123456789ab"

    for change in (of_a_run, of_a_parent, to_a_parent):
        assert refused(place, changed(small, change)).startswith(f"'{place / 'export'}': ")


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "tags.state": lambda data: data["runs"][0]["tags"].update(state="running"),
    "tags.phase": lambda data: data["runs"][0]["tags"].update(phase="parent"),
    "tags.task: is missing": lambda data: data["runs"][0]["tags"].pop("task"),
    "mlflow.parentRunId": lambda data: data["runs"][0]["tags"].update({"mlflow.parentRunId": "x"}),
    "metrics.../x": lambda data: data["runs"][0]["metrics"].update({"../x": 1.0}),
    "metrics.a": lambda data: data["runs"][0]["metrics"].update(a="1"),
    "params.lr": lambda data: data["runs"][1]["params"].update(lr="fast"),
    "experiment": lambda data: data["runs"][0].update(experiment="parent of 0123456789ab"),
    "title": lambda data: data["runs"][0].update(title="\x1b[2J"),
    "made": lambda data: data["runs"][0].update(made="yesterday"),
    "is there twice": lambda data: data["runs"].append(data["runs"][0]),
    "spec.study": lambda data: data["runs"][0]["spec"].update(study="none"),
    "spec.protocol_digest": lambda data: data["runs"][0]["spec"].update(protocol_digest="0" * 12),
    "no hash": lambda data: data["runs"][0]["spec"]["loss"].update(weight=float("nan")),
    "runs: ": lambda data: data.pop("runs"),
    "selected": lambda data: [parent["tags"].update(selected="{}") for parent in data["parents"].values()],
    "identities: must be a JSON list": lambda data: [
        parent["tags"].update(identities="[") for parent in data["parents"].values()
    ],
}


@pytest.mark.parametrize("says", CHANGES)
def test_a_fault_is_named_with_its_place(place: Path, small: dict[str, Any], says: str) -> None:
    assert says in refused(place, changed(small, CHANGES[says]))


TABLES: dict[str, Callable[[dict[str, pd.DataFrame]], dict[str, pd.DataFrame]]] = {
    "curves.parquet.metric: is missing": lambda t: {"curves.parquet": t["curves.parquet"].drop(columns="metric")},
    "curves.parquet.step: must be numbers": lambda t: {"curves.parquet": t["curves.parquet"].assign(step="a")},
    "twice at one step": lambda t: {"curves.parquet": pd.concat([t["curves.parquet"]] * 2)},
    "scores.parquet.item: is missing": lambda t: {"scores.parquet": t["scores.parquet"].drop(columns="item")},
    "scores.parquet.name": lambda t: {"scores.parquet": t["scores.parquet"].assign(**{"../x": 1.0})},
    "scores.parquet.estoi: must be numbers": lambda t: {"scores.parquet": t["scores.parquet"].assign(estoi="=1+1")},
}


@pytest.mark.parametrize("says", TABLES)
def test_a_faulty_table_is_named_with_its_column(place: Path, small: dict[str, Any], says: str) -> None:
    assert says in refused(place, small | TABLES[says](small))


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each part of JSON data."""
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


VALUES = st.one_of(ANYTHING, NAMES, st.sampled_from([10**400, -1, "\ud800", "[" * 9000, '{"lr": NaN}', float("inf")]))


@given(st.data())
@settings(QUICK, max_examples=40)
def test_whatever_stands_in_an_export_it_is_taken_or_refused_in_one_line(
    place: Path, small: dict[str, Any], data: st.DataObject
) -> None:
    ways = sorted(places(small["runs.json"]), key=lambda way: (len(way), str(way)))
    other = copy.deepcopy(small["runs.json"])
    for _ in range(data.draw(st.integers(1, 2))):
        *way, last = data.draw(st.sampled_from(ways))
        with suppress(KeyError, IndexError, TypeError):  # it went with the change before
            node = other
            for key in way:
                node = node[key]
            what = data.draw(st.sampled_from(["value", "key", "gone"]))
            if what == "gone":
                del node[last]
            elif what == "key" and isinstance(node, dict):
                node[data.draw(NAMES)] = node.pop(last)
            else:
                node[last] = data.draw(VALUES)
    folder, before = export(small | {"runs.json": other}, place / "export"), held(place)
    taken_or_refused(exchange.read, fresh(place), folder, quiet)
    assert held(place) == before


@given(st.sampled_from(exchange.FILES), st.binary(max_size=60), st.integers(0, 5000))
@QUICK
def test_bytes_that_are_damaged_are_refused_in_one_line(
    place: Path, small: dict[str, Any], name: str, piece: bytes, at: int
) -> None:
    folder, before = export(small, place / "export"), held(place)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:at] + piece + whole[at + len(piece) :])
    with suppress(UserError):  # what is read as a table all the same is one
        exchange._check(exchange._open(folder)[0])
    assert held(place) == before


@given(NAMES)
@QUICK
def test_no_name_leads_out_of_the_outbox(place: Path, name: str) -> None:
    tracker = Tracker()
    own = outbox._folder(tracker)

    def outside() -> dict[str, bytes]:
        return {path: content for path, content in held(place).items() if own not in Path(path).parents}

    before = outside()
    for ask in (outbox.find, lambda tracker, name: outbox._keep(tracker, name, {}, None)):
        with suppress(UserError, OSError, UnicodeError):  # OSError: too long for a folder
            ask(tracker, name)
    assert outside() == before


@given(
    st.lists(
        st.text(max_size=8) | st.sampled_from(["a\0b", '"', "\r", ",", "=1+1", "\x1b[2J", "nan"]),
        min_size=1,
        max_size=4,
    )
)
@settings(QUICK, max_examples=8)
def test_any_text_is_a_name_of_an_item(place: Path, small: dict[str, Any], names: list[str]) -> None:
    table = small["scores.parquet"]
    table = table.assign(item=[names[row % len(names)] for row in range(len(table))])
    made, _, _ = exchange.read(fresh(place), export(small | {"scores.parquet": table}, place / "export"), quiet)
    assert made == len(small["runs.json"]["runs"])
