import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_confusion_matrix,
    multiclass_recall,
)

from harness.report import classes


def answers(label, said):
    return pd.DataFrame({"label": label, "said": said}, dtype=float)


@pytest.fixture
def many():
    rng = np.random.default_rng(0)
    return answers(rng.integers(0, 5, 400), rng.integers(0, 5, 400))


def test_confusions_by_hand():
    # Class 0: right, right, taken for 1, no answer; class 1: taken for 0; class 2 is never asked.
    table = answers([0, 0, 0, 0, 1], [0, 0, 1, np.nan, 0])
    found = classes.confusion(table, 3)
    assert found[:2].tolist() == [[50, 25, 0], [100, 0, 0]]
    assert np.isnan(found[2]).all()


def test_confusions_are_those_of_torchmetrics(many):
    said, label = (torch.tensor(many[name].to_numpy(int)) for name in ("said", "label"))
    expected = 100 * multiclass_confusion_matrix(said, label, 5, normalize="true").numpy()
    assert classes.confusion(many, 5) == pytest.approx(expected, rel=1e-5)


def test_recall_is_that_of_torchmetrics_and_of_classes_that_are_there(many):
    said, label = (torch.tensor(many[name].to_numpy(int)) for name in ("said", "label"))
    assert classes.recall(many, 5) == pytest.approx(float(multiclass_recall(said, label, 5, average="macro")))
    assert classes.recall(answers([0, 0, 1, 1], [0, 1, 1, 1]), 3) == 0.75
    assert np.isnan(classes.recall(answers([], []), 3))


def test_minority_recall_is_of_the_rarest_quarter():
    label = np.arange(8)
    assert classes.recall(answers(label, np.where(label == 7, 0, label)), 8, imbalance=10) == 0.5


def test_bins_give_the_calibration_error_of_torchmetrics():
    rng = np.random.default_rng(1)
    sure, right = rng.random(500), rng.random(500) < 0.6
    bins = classes.calibration(sure, right)
    error = (bins["items"] * (bins["accuracy"] - bins["confidence"]).abs()).sum() / bins["items"].sum()
    assert error == pytest.approx(float(binary_calibration_error(torch.tensor(sure), torch.tensor(right).long(), 15)))


def test_the_surest_and_the_least_sure_are_in_bins():
    assert classes.calibration([0.0, 1.0, 1.0], [False, True, False])["items"].tolist() == [1, 2]


def test_principal_components_are_the_eigenvectors_of_the_covariance():
    vectors = np.random.default_rng(2).standard_normal((50, 6)) * np.arange(1, 7)
    places, share = classes.principal(vectors)
    values, axes = np.linalg.eigh(np.cov(vectors.T))
    expected = (vectors - vectors.mean(0)) @ axes[:, [-1, -2]]
    assert np.abs(places) == pytest.approx(np.abs(expected))
    assert share == pytest.approx(values[[-1, -2]] / values.sum())
    assert (places.max(0) > -places.min(0)).all()


@pytest.mark.parametrize("vectors", [np.ones((4, 3)), np.ones((1, 3)), np.arange(3.0)[:, None]])
def test_components_that_are_not_there_are_zero(vectors):
    places, share = classes.principal(vectors)
    assert places.shape == (len(vectors), 2)
    assert (places[:, 1] == 0).all()
    assert np.isfinite(share).all()


def test_seeds_have_a_mean_and_a_spread_and_one_seed_has_none():
    values = pd.DataFrame([("a", "f", 0.5), ("a", "f", 0.7), ("b", "f", 0.1)], columns=["loss", "metric", "value"])
    table = classes.over_seeds(values).set_index("loss")
    assert table.loc["a", ["mean", "std", "count"]].tolist() == pytest.approx([0.6, np.sqrt(0.02), 2])
    assert np.isnan(table["std"]["b"])
