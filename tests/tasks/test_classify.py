import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score
from torch import nn

from harness import tasks
from tests.real import CPU, word_scenes

KEYWORDS = tasks.get("keywords")


class Given(nn.Module):
    """Its embedding and its logits are what it hears."""

    def forward(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"embedding": noisy, "logits": noisy}


def batches(step: int) -> dict[str, torch.Tensor]:
    """Classes 0 and 2 lie on two axes, however long their vectors; no item is of class 1."""
    label = torch.tensor([0, 0, 2, 2])
    length = torch.tensor([1.0, 100.0, 0.01, 5.0])[:, None]
    return {"noisy": length * torch.eye(3)[label], "label": label}


def nearest(*embeddings: list[float]) -> list[float]:
    examples = [{"noisy": torch.tensor(embedding)} for embedding in embeddings]
    return [float(made["nearest"]) for made in KEYWORDS.outputs(Given(), examples, CPU, batches)]


def measured(logits, label: int, near: float = 0) -> dict[str, float]:
    output = {"logits": np.array(logits, np.float32), "nearest": np.array(near)}
    return KEYWORDS.measure(output, {"label": torch.tensor(label)})


def test_the_nearest_centroid_is_by_direction_and_never_of_a_class_without_items():
    assert nearest([50.0, 0.0, 1.0], [0.001, 0.0, 0.002], [0.1, 9.0, 0.2]) == [0, 2, 2]


def test_an_embedding_that_is_not_finite_is_near_nothing():
    assert np.isnan(nearest([np.nan, 0.0, 0.0])).all()
    values = measured([1.0, 0.0, 0.0], 0, np.nan)
    assert np.isnan(values["centroid_accuracy"])
    assert values["accuracy"] == 1


def test_accuracy_is_of_the_highest_logit_and_of_the_nearest_centroid():
    values = measured([0.0, 2.0, 1.0], label=1, near=2)
    assert (values["accuracy"], values["centroid_accuracy"]) == (1, 0)
    assert values["confidence"] == pytest.approx(np.exp(2) / (1 + np.e + np.exp(2)))
    values = measured([0.0, 2.0, 1.0], label=2, near=2)
    assert (values["accuracy"], values["centroid_accuracy"]) == (0, 1)


def test_chance_is_right_once_in_so_many_classes():
    scenes = word_scenes("keywords")
    (made,) = KEYWORDS.control("chance", [{}], scenes, nn.Module)
    assert KEYWORDS.measure(made, {"label": torch.tensor(3)}) == {"accuracy": 1 / 20, "centroid_accuracy": 1 / 20}
    assert len(scenes.classes) == 20


def test_the_constant_control_is_right_about_the_first_class_alone():
    made = KEYWORDS.control("constant", [{}] * 20, word_scenes("keywords"), nn.Module)
    right = [KEYWORDS.measure(output, {"label": torch.tensor(k)})["accuracy"] for k, output in enumerate(made)]
    assert right == [1.0] + 19 * [0.0]


def test_macro_f1_is_scikit_learns_also_of_a_class_that_is_never_said():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, 80)
    logits = rng.normal(size=(80, 5)) + 1.5 * np.eye(5)[label]
    logits[:, 4] -= 9
    table = pd.DataFrame([measured(row, int(k)) for row, k in zip(logits, label, strict=True)])
    said = logits.astype(np.float32).argmax(1)
    assert KEYWORDS.summary(table)["macro_f1"] == pytest.approx(f1_score(label, said, average="macro"))


def test_the_calibration_error_is_that_of_bins_by_hand():
    table = pd.DataFrame({"said": [0, 0, 0, 0, 1], "label": [0, 0, 0, 1, 1], "confidence": [0.9, 0.9, 0.9, 0.9, 0.5]})
    # Three of four are right at 0.9, one of one at 0.5.
    expected = 0.8 * abs(0.75 - 0.9) + 0.2 * abs(1 - 0.5)
    assert KEYWORDS.summary(table)["calibration_error"] == pytest.approx(expected)


def test_a_perfect_and_sure_table_has_no_error():
    table = pd.DataFrame([measured(60 * np.eye(3)[k], k) for k in (0, 1, 2, 0)])
    assert KEYWORDS.summary(table) == pytest.approx({"macro_f1": 1, "calibration_error": 0})


def test_logits_that_are_not_finite_are_floored_and_leave_no_summary():
    outputs = [{"logits": np.array([np.nan, 1.0]), "nearest": np.array(1)}, {"logits": np.eye(2)[1], "nearest": np.nan}]
    examples = [{"label": torch.tensor(1)}] * 2
    scored = KEYWORDS.score(outputs, examples, [KEYWORDS.judged] * 2, None)
    assert [floored for _, floored in scored] == [["accuracy"], ["centroid_accuracy"]]
    assert [values["accuracy"] for values, _ in scored] == [0, 1]
    assert [values["centroid_accuracy"] for values, _ in scored] == [1, 0]
    assert KEYWORDS.summary(pd.DataFrame([values for values, _ in scored])) == {}
    assert KEYWORDS.summary(pd.DataFrame([{"accuracy": 0.05}])) == {}  # of chance, which says no class
