"""Results that are exported and imported rank elsewhere as they did at home."""

from __future__ import annotations

import json
import re
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from harness import enhance, exchange
from harness.errors import UserError
from harness.outbox import Record
from harness.tracking import Tracker, made_at
from tests.conftest import Smoke, here, settled
from tests.real import CPU


def quiet(done: int, of: int) -> None:
    pass


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Beyond so many bytes every write of this process fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def exported(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "results"
    done = here("export", str(folder), home=smoke.home)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def elsewhere(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of another machine, which has imported the results."""
    home = tmp_path_factory.mktemp("elsewhere")
    done = here("import", str(exported), home=home)
    assert done.returncode == 0, done.stderr
    return home


def test_the_imported_results_make_the_same_tables(smoke: Smoke, elsewhere: Path) -> None:
    assert here("report", home=elsewhere).returncode == 0
    for name, keys in {"ranking": ["test_set", "metric", "loss"], "pairs": ["test_set", "metric", "a", "b"]}.items():
        tables = [
            pd.read_csv(home / "reports" / f"{name}.csv")
            .drop(columns="run_id", errors="ignore")
            .sort_values(keys, ignore_index=True)
            for home in (smoke.home, elsewhere)
        ]
        pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_imported_twice_nothing_is_doubled(exported: Path, elsewhere: Path) -> None:
    before = sorted(tags["identity"] for tags in settled(elsewhere))
    assert len(before) == len(set(before))
    done = here("import", str(exported), home=elsewhere)
    assert done.stdout.startswith("0 runs imported")
    assert sorted(tags["identity"] for tags in settled(elsewhere)) == before


def test_exported_from_where_they_were_imported_results_are_the_same_bytes(
    exported: Path, elsewhere: Path, tmp_path: Path
) -> None:
    assert here("export", str(tmp_path / "again"), home=elsewhere).returncode == 0
    for name in exchange.FILES:
        assert (tmp_path / "again" / name).read_bytes() == (exported / name).read_bytes(), name


def test_a_folder_of_exports_is_imported_whole_and_a_run_of_two_of_them_once(
    smoke: Smoke, exported: Path, tmp_path: Path
) -> None:
    source = Tracker(f"sqlite:///{smoke.home / 'runs' / 'mlflow.db'}")
    for loss in ("snr", "mse"):
        exchange.write(source, f"tags.loss = '{loss}'", tmp_path / "published" / "denoise" / loss, quiet)
    exchange.write(source, "tags.loss = 'snr'", tmp_path / "published" / "again", quiet)
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}")
    made, known, _ = exchange.read(tracker, tmp_path / "published", quiet)
    rows = [row["tags"] for row in json.loads((exported / "runs.json").read_text())["runs"]]
    assert made == sum(tags["loss"] in ("snr", "mse") for tags in rows)
    assert known == sum(tags["loss"] == "snr" for tags in rows)


def test_when_a_run_was_made_survives_the_journey(smoke: Smoke, elsewhere: Path) -> None:
    made = [
        {run.data.tags["identity"]: made_at(run) for run in tracker.search() if run.data.tags.get("phase") == "confirm"}
        for tracker in (Tracker(f"sqlite:///{home / 'runs' / 'mlflow.db'}") for home in (smoke.home, elsewhere))
    ]
    for identity, when in made[1].items():
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", when)
        assert made[0].get(identity, when) == when


def test_a_study_on_the_other_machine_reuses_what_was_imported(elsewhere: Path) -> None:
    done = here("plan", "smoke", home=elsewhere)
    assert done.returncode == 0, done.stderr
    assert "0 runs to make" in done.stdout


def test_a_filter_exports_its_runs_alone_and_an_export_is_replaced(smoke: Smoke, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    for loss in ("si_sdr", "snr"):
        assert here("export", f"tags.loss = '{loss}'", str(folder), home=smoke.home).returncode == 0
        rows = json.loads((folder / "runs.json").read_text())["runs"]
        assert {row["tags"]["loss"] for row in rows} == {loss}
        assert set(pd.read_parquet(folder / "scores.parquet").identity) <= {row["tags"]["identity"] for row in rows}


def test_an_export_is_small(exported: Path) -> None:
    runs = len(json.loads((exported / "runs.json").read_text())["runs"])
    assert sum(path.stat().st_size for path in exported.iterdir()) < 12_000 * runs


def test_contents_that_do_not_give_their_identity_are_refused(exported: Path, tmp_path: Path) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}")
    for change in ("rate", "protocol"):
        folder = tmp_path / change
        shutil.copytree(exported, folder)
        data = json.loads((folder / "runs.json").read_text())
        if change == "rate":
            next(row for row in data["runs"] if row["spec"] and row["spec"]["lr"])["spec"]["lr"] *= 2
        else:
            next(iter(data["protocols"].values()))["batch"] += 1
        (folder / "runs.json").write_text(json.dumps(data))
        with pytest.raises(UserError, match="do not give"):
            exchange.read(tracker, folder, quiet)
        assert tracker.search() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("export", "tags.loss == 3", "out"), "filter"),
        (("export", "tags.loss = 'nothing'", "out"), "no finished run matches"),
        (("export", "."), "holds other things than an export"),
        (("import", "nowhere"), "no runs.json"),
    ],
)
def test_what_cannot_be_exported_or_imported_is_one_line(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "something").touch()
    monkeypatch.chdir(tmp_path)
    done = here(*arguments, home=smoke.home)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert says in done.stderr


def test_damaged_files_are_one_line_and_import_nothing(exported: Path, tmp_path: Path) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}")
    for name in exchange.FILES:
        folder = tmp_path / name.replace(".", "_")
        shutil.copytree(exported, folder)
        (folder / name).write_bytes((folder / name).read_bytes()[:100])
        with pytest.raises(UserError, match="damaged"):
            exchange.read(tracker, folder, quiet)
    assert tracker.search() == []


def test_a_run_that_was_imported_has_no_model_to_enhance_with_and_says_so(elsewhere: Path, tmp_path: Path) -> None:
    tracker = Tracker(f"sqlite:///{elsewhere / 'runs' / 'mlflow.db'}")
    run = tracker.search("tags.phase = 'confirm'")[0].info.run_id
    with pytest.raises(UserError, match=r"has kept no weights .*, imported"):
        enhance.load(tracker, run, CPU)


def test_of_a_measurement_taken_again_the_newest_is_exported(smoke: Smoke, exported: Path, tmp_path: Path) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}")
    exchange.read(tracker, exported, quiet)
    first = tracker.search("tags.phase = 'throughput'")[0]
    tags = {name: value for name, value in first.data.tags.items() if not name.startswith("mlflow.")}
    again = Record(tracker, tracker.experiment_name(first.info.experiment_id), "again", None, tags, {})
    again.log([("loss_ms", 123.0, 0)])
    again.close("finished")
    where = f"tags.identity = '{tags['identity']}'"
    assert exchange.write(tracker, where, tmp_path / "export", quiet) == 1
    assert json.loads((tmp_path / "export" / "runs.json").read_text())["runs"][0]["metrics"]["loss_ms"] == 123.0


def test_where_the_disk_is_full_a_command_is_one_line_with_code_2_and_what_was_there_stays(
    smoke: Smoke, exported: Path, tmp_path: Path
) -> None:
    shutil.copytree(exported, tmp_path / "results")
    with largest_file(8192):
        done = here("export", str(tmp_path / "results"), home=smoke.home)
    assert done.returncode == 2, done.stdout + done.stderr
    assert re.fullmatch(r"error: no space left for .+: free some, then run the same command again\n", done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    for name in exchange.FILES:
        assert (tmp_path / "results" / name).read_bytes() == (exported / name).read_bytes(), name
