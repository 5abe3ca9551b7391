"""The main job from end to end: what a finished study leaves behind."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import optuna
import pandas as pd
import pytest
import soundfile
import torch
import yaml
from optuna.trial import TrialState

from harness import models, paths
from harness.metrics import OF_CLIPS
from harness.report import runs
from harness.tracking import Tracker
from tests.conftest import Smoke, here, settled

CONTROLS = {"unprocessed", "oracle_mask", "oracle_psm"}
LOSSES = {"si_sdr", "snr", "mse"}


@pytest.fixture(scope="module")
def tracker(smoke: Smoke) -> Tracker:
    return Tracker(f"sqlite:///{smoke.home / 'runs' / 'mlflow.db'}")


@pytest.fixture(scope="module")
def ranking(smoke: Smoke) -> pd.DataFrame:
    return pd.read_csv(smoke.home / "reports" / "ranking.csv", keep_default_na=False, na_values=[""])


def test_the_ranking_holds_every_loss_and_control_on_both_test_sets_with_every_metric(ranking: pd.DataFrame) -> None:
    assert set(ranking.loss) == LOSSES | CONTROLS
    for _, rows in ranking[ranking.metric != "overall"].groupby(["loss", "test_set"]):
        assert set(rows.metric) == set(OF_CLIPS)
        dnsmos = rows.metric.str.startswith("dnsmos")
        items = 6 if rows.test_set.iloc[0] == "matched" else 3
        assert (rows["items"][~dnsmos] == items).all()
        assert (rows["items"][dnsmos] == items // 3).all()  # every third, as the study says
        assert (rows.missing == 0).all()
    assert (ranking[ranking.loss.isin(LOSSES)].seeds == 2).all()


def test_oracle_masks_lie_above_every_trained_net_and_the_mixture(ranking: pd.DataFrame) -> None:
    rows = ranking[(ranking.test_set == "matched")].set_index(["loss", "metric"])["mean"]
    for metric, oracle in (("pesq_wb", "oracle_mask"), ("stoi", "oracle_mask"), ("si_sdr", "oracle_psm")):
        others = [rows[loss, metric] for loss in (*LOSSES, "unprocessed")]
        assert rows[oracle, metric] > max(others) + 0.01


def test_the_unprocessed_row_has_the_snr_of_the_scenes(ranking: pd.DataFrame, tracker: Tracker) -> None:
    scores = runs.read(tracker).scores
    unprocessed = scores.groupby("run_id").filter(lambda rows: len(rows) == 9)
    gap = (unprocessed.snr - unprocessed.input_snr).groupby(unprocessed.run_id).apply(lambda x: x.abs().mean())
    # SNR over the whole clip is a little below that over active speech: pauses hold noise only.
    assert gap.min() < 2.0


def test_csv_files_have_the_columns_that_other_tools_rely_on(smoke: Smoke) -> None:
    wanted = {
        "ranking": "task corpus model loss weighting state test_set metric target mean low high rank tie_group items "
        "missing floored seeds params protocol device run_id",
        "pairs": "a b test_set metric diff low high p_adjusted p_a_beats_b",
        "throughput": "loss device threads dtype loss_ms ratio_to_mse step_ms updates_per_s audio_s_per_s peak_mib",
    }
    for name, columns in wanted.items():
        table = pd.read_csv(smoke.home / "reports" / f"{name}.csv")
        assert list(table.columns)[: len(columns.split())] == columns.split(), name
        assert len(table) > 0


def test_throughput_rows_name_the_device_and_are_positive(smoke: Smoke) -> None:
    table = pd.read_csv(smoke.home / "reports" / "throughput.csv").set_index("loss")
    assert set(table.index) == LOSSES
    assert table.device.str.len().gt(3).all()
    assert (table[["loss_ms", "step_ms", "updates_per_s", "audio_s_per_s", "peak_mib"]] > 0).all().all()
    assert table.ratio_to_mse["mse"] == 1
    assert (table.step_ms > table.loss_ms * 0.2).all()


def test_the_study_prints_its_table_and_where_the_report_lies(smoke: Smoke) -> None:
    assert "si_sdr" in smoke.output
    assert "unprocessed" in smoke.output
    assert str(smoke.home / "reports" / "index.html") in smoke.output


def test_every_run_is_a_child_of_its_loss_and_carries_its_spec_and_scores(tracker: Tracker) -> None:
    everything = tracker.search()
    parents = {run.info.run_id: run for run in everything if run.data.tags.get("phase") == "parent"}
    assert sorted(run.data.tags["loss"] for run in parents.values()) == sorted(LOSSES | CONTROLS)
    for run in everything:
        phase = run.data.tags["phase"]
        if phase in ("parent", "throughput"):
            continue
        assert run.info.status == "FINISHED"
        assert parents[run.data.tags["mlflow.parentRunId"]].data.tags["loss"] == run.data.tags["loss"]
        content = tracker.read_json(run.info.run_id, "spec.json")
        assert content["identity"] == run.data.tags["identity"]
        assert content["protocol"]["result_version"] >= 1
        if phase != "tune":
            assert tracker.artifact(run.info.run_id, "scores.csv") is not None
        if phase == "confirm":
            curve = [m.step for m in tracker._client.get_metric_history(run.info.run_id, "validation/pesq_wb")]
            assert curve[-1] == 24
            assert {"seconds/train", "seconds/evaluation", "seconds/logging"} <= set(run.data.metrics)
            penalty = [m.step for m in tracker._client.get_metric_history(run.info.run_id, "penalty/l2")]
            assert penalty == [20, 24]  # at every reading, though no penalty was in the loss
            assert run.data.metrics["penalty/l1"] > 0


def test_test_sets_are_read_by_confirming_runs_and_controls_only(tracker: Tracker) -> None:
    for run in tracker.search():
        reads = any(name.startswith(("matched/", "mismatched/")) for name in run.data.metrics)
        assert reads == (run.data.tags["phase"] in ("confirm", "control"))
        assert reads == ("test_list" in run.data.tags)


def test_tuning_went_beyond_the_edge_where_the_best_rate_lay_on_it(tracker: Tracker) -> None:
    tuning = runs.read(tracker).tuning
    for loss, rows in tuning.groupby("loss"):
        rates = sorted(rows.lr)
        best = rows.loc[rows.score.idxmax(), "lr"]
        assert rows.loc[rows.chosen, "lr"].tolist() == [best], loss
        assert rates[0] < best < rates[-1] or len(rates) == 2 + 2, loss


def test_optuna_and_mlflow_agree_on_every_trial(smoke: Smoke, tracker: Tracker) -> None:
    storage = f"sqlite:///{smoke.home / 'runs' / 'optuna.db'}"
    told = 0
    for name in optuna.get_all_study_names(storage):
        trials = [t for t in optuna.load_study(study_name=name, storage=storage).trials if t.state != TrialState.FAIL]
        assert all(t.state == TrialState.COMPLETE for t in trials)
        told += len(trials)
    finished = [r for r in tracker.search() if r.data.tags["phase"] in ("control", "tune", "confirm")]
    identities = [run.data.tags["identity"] for run in finished]
    assert len(identities) == len(set(identities)) == told


def test_kept_audio_plays_and_the_checkpoint_loads_without_pickle(tracker: Tracker) -> None:
    run = next(r for r in tracker.search("tags.phase = 'confirm'"))
    folder = tracker.artifact(run.info.run_id, "audio")
    assert folder is not None
    kinds = {path.name.split(".")[1] for path in folder.glob("*.wav")}
    assert kinds == {"noisy", "clean", "estimate"}
    for path in folder.glob("*.wav"):
        audio, rate = soundfile.read(path)
        assert rate == 16_000
        assert 1.5 * rate <= len(audio) <= 8 * rate
        assert abs(audio).max() > 0.01
    assert len(list(folder.glob("*.png"))) == 3
    checkpoint = tracker.artifact(run.info.run_id, "model.pt")
    assert checkpoint is not None
    models.build("gru_mask").load_state_dict(torch.load(checkpoint, weights_only=True))


def test_asked_again_unchanged_the_study_reuses_every_run(smoke: Smoke, tmp_path: Path) -> None:
    home = smoke.copied(tmp_path / "home")
    tracker = Tracker(f"sqlite:///{home / 'runs' / 'mlflow.db'}")
    before = {run.info.run_id for run in tracker.search()}
    assert before
    start = time.monotonic()
    done = here("study", "smoke", home=home)
    assert done.returncode == 0, done.stderr
    assert {run.info.run_id for run in tracker.search()} == before
    assert time.monotonic() - start < 60  # a bound on hanging, not a benchmark
    assert "finished" not in done.stdout


def test_a_deleted_report_comes_back_the_same_from_mlflow_alone(smoke: Smoke, tmp_path: Path) -> None:
    home = smoke.copied(tmp_path / "home")
    first = (home / "reports" / "ranking.csv").read_text()
    shutil.rmtree(home / "reports")
    (home / "runs" / "optuna.db").unlink()
    assert here("report", home=home).returncode == 0
    assert (home / "reports" / "ranking.csv").read_text() == first
    assert "<audio" in next((home / "reports").glob("denoise-*.html")).read_text()


def test_soak_reads_the_same_runs_and_fails_where_a_loss_does_not_improve(smoke: Smoke, tmp_path: Path) -> None:
    home = smoke.copied(tmp_path / "home")
    before = len(settled(home))
    done = here("soak", "smoke", home=home)
    assert len(settled(home)) == before
    rows = [line for line in done.stdout.splitlines() if line.rstrip(" │").endswith(("yes", "NO"))]
    assert {line.strip("│ ").split()[0] for line in rows} == {"si_sdr", "snr", "mse"}
    assert done.returncode == int(any("NO" in line for line in rows)), done.stdout + done.stderr


def test_plan_starts_nothing_and_says_what_is_reused(smoke: Smoke, tracker: Tracker) -> None:
    before = len(tracker.search())
    done = here("plan", "smoke", "--loss", "si_sdr", "--loss", "l1", home=smoke.home)
    assert done.returncode == 0, done.stderr
    lines = [line.replace("│", " ").split() for line in done.stdout.splitlines()]
    assert ["si_sdr", "confirm", "2", "2", "0", "24"] in lines
    assert ["l1", "confirm", "2", "0", "2", "24"] in lines
    assert ["mse", "confirm", "2", "2", "0", "24"] in lines
    assert len(tracker.search()) == before


def test_a_loss_trained_later_joins_the_same_table(smoke: Smoke, tmp_path: Path) -> None:
    home = smoke.copied(tmp_path / "home")
    done = here("study", "smoke", "--loss", "log_mse", home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    ranking = pd.read_csv(home / "reports" / "ranking.csv")
    assert set(ranking.loss) == LOSSES | CONTROLS | {"log_mse"}
    assert ranking.protocol.nunique() == 1


def test_losses_that_a_study_says_must_tie_are_told_apart_or_not_from_mlflow_alone(
    smoke: Smoke, tmp_path: Path
) -> None:
    home = smoke.copied(tmp_path / "home")
    raw = yaml.safe_load((paths.STUDIES / "smoke.yaml").read_text()) | {"identities": [["snr", "si_sdr"]]}
    (tmp_path / "twins.yaml").write_text(yaml.safe_dump(raw))
    before = len(settled(home))
    done = here("study", str(tmp_path / "twins.yaml"), home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(settled(home)) == before
    assert "the harness's own noise: Losses that must tie (snr = si_sdr) differ by at most PESQ-WB" in done.stdout
    shutil.rmtree(home / "reports")
    assert here("report", home=home).returncode == 0
    assert "Losses that must tie (snr = si_sdr)" in next((home / "reports").glob("denoise-*.html")).read_text()
