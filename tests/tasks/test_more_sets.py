"""Sets that a study may ask for beside the test: words of no class, and words that people say."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from harness import keys, losses, spec, study, workers
from harness.errors import UserError
from harness.report import page, ranking, runs
from harness.tasks import classify

FEW = {"updates": {"tune": 2, "confirm": 4}, "batch": 32, "seeds": 1, "rates": [1e-3], "losses": ["cross_entropy"]}
ITEMS = {"validation": 20, "matched": 40, "mismatched": 40, "open_set": 30, "real_words": 20}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A few updates of the imbalanced study, judged on all that can be judged."""
    folder = tmp_path_factory.mktemp("more")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classify, "CENTROID_ITEMS", 64)
        yield judged(folder)


def judged(folder: Path) -> runs.Results:
    options = workers.Options("cpu", 1, tracking_uri=f"sqlite:///{folder}/mlflow.db")
    loaded = spec.load("keywords_imbalanced", FEW | {"scenes": {"items": ITEMS}})
    context = workers.open_study(loaded, options, 1, lambda line: None)
    study.work(context, study.open_storage(f"sqlite:///{folder}/optuna.db"), lambda event: None, datetime.now())
    return runs.read(context.tracker)


def test_trainings_and_controls_have_error_rates_of_the_sets_and_of_the_open_set(results):
    wide = results.summaries.pivot(index=["run_id", "test_set"], columns="metric", values="value")
    rates = wide["equal_error_rate"].unstack()
    assert rates[["matched", "mismatched"]].notna().all().all()
    controls = results.runs.loc[results.runs["role"] == "control", "run_id"]
    assert (rates.loc[controls, ["matched", "mismatched"]] == 0.5).all().all()
    detected = wide.xs("matched", level="test_set")[["open_set_auroc", "open_set_centroid_auroc"]]
    (trained,) = set(results.runs["run_id"]) - set(controls)
    assert (detected.loc[controls] == 0.5).all().all()
    assert detected.loc[trained].between(0, 1, inclusive="neither").all()


def test_no_loss_is_ranked_by_the_open_set_and_all_are_by_real_words(results):
    analysis = ranking.analyse(results)
    assert set(analysis.ranking["test_set"]) == {"matched", "mismatched", "real_words"}
    unknown = results.scores[results.scores["test_set"] == "open_set"]
    assert len(unknown) == 3 * ITEMS["open_set"]
    assert unknown["accuracy"].isna().all()
    assert (unknown["floored"] == "").all()


def test_the_page_shows_them_and_the_recall_of_the_rare(results):
    text = page.render(results, ranking.analyse(results))
    for phrase in ("minority recall", "equal error rate ↓", "AUROC of the open set", "AUROC by centroid"):
        assert phrase in text
    assert "Real words: 20 items, 10 prompts" in text
    assert "Ten recordings of one voice" in text


def test_a_protocol_knows_of_them_only_where_they_are_asked_for():
    plain = spec.load("keywords_imbalanced")
    assert not set(keys.protocol(plain, "", {})["scenes"]["items"]) & {"open_set", "real_words", "training"}
    asked = spec.load("keywords_imbalanced", {"scenes": {"items": ITEMS}})
    assert keys.protocol(asked, "", {})["scenes"]["items"]["open_set"] == 30


@pytest.mark.parametrize("task", ["denoise", "tags"])
def test_other_tasks_have_no_such_sets(task):
    with pytest.raises(UserError, match=r"unknown key 'scenes\.items\.open_set'"):
        spec.load(task, {"scenes": {"items": {"open_set": 10}}})


def test_class_weights_of_the_imbalanced_study_have_a_mean_of_one_over_what_training_hears():
    loaded = spec.load("keywords_imbalanced")
    share = loaded.scenes.imbalance ** -np.linspace(0, 1, 20)  # as the scenes draw
    share /= share.sum()
    given = [
        np.array(weights)
        for expression in loaded.losses
        for term in losses.parse(expression).terms
        for name, weights in term.settings.items()
        if name in ("class_weights", "weight") and weights is not None
    ]
    assert len(given) == 3
    for weights in given:
        assert (share * weights).sum() == pytest.approx(1, abs=1e-3)
        assert (np.diff(weights) > 0).all()
