import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score

from harness import tasks
from tests.real import word_scenes

TAGS = tasks.get("tags")


def items(rng, count=40, classes=5):
    """Logits and targets, (count, classes), of at least one word each."""
    logits = rng.normal(size=(count, classes)).astype(np.float32)
    targets = (rng.random((count, classes)) < 0.3).astype(np.float32)
    targets[np.arange(count), np.arange(count) % classes] = 1
    return logits, targets


def measured(logits, targets) -> list[dict[str, float]]:
    return [
        TAGS.measure({"logits": row}, {"targets": torch.from_numpy(said)})
        for row, said in zip(logits, targets, strict=True)
    ]


def test_an_items_average_precision_is_that_of_its_own_ranking():
    said = np.array([[1, 0, 1, 0]], np.float32)
    for logits, expected in (
        ([9, -1, 3, -2], 1.0),
        ([3, 9, 1, -2], (1 / 2 + 2 / 3) / 2),  # second and third
        ([-5, 2, -6, 3], (1 / 3 + 2 / 4) / 2),  # the last two
    ):
        row = np.array([logits], np.float32)
        assert measured(row, said)[0]["average_precision"] == pytest.approx(expected)


def test_average_precision_is_scikit_learns():
    logits, targets = items(np.random.default_rng(0))
    values = [row["average_precision"] for row in measured(logits, targets)]
    for value, row, said in zip(values, logits, targets, strict=True):
        assert value == pytest.approx(label_ranking_average_precision_score(said[None], row[None]))


def test_sure_words_keep_their_order():
    said = np.array([[1, 0, 0]], np.float32)
    for logits, expected in (([30, 20, 0], 1.0), ([20, 30, 0], 0.5)):
        assert measured(np.array([logits], np.float32), said)[0]["average_precision"] == expected


def test_mean_average_precision_is_scikit_learns_over_the_words():
    logits, targets = items(np.random.default_rng(1))
    table = pd.DataFrame(measured(logits, targets))
    expected = np.mean([average_precision_score(targets[:, k], logits[:, k]) for k in range(targets.shape[1])])
    assert TAGS.summary(table) == pytest.approx({"mean_average_precision": expected})


def test_mean_average_precision_is_one_where_each_word_ranks_its_items_first():
    _, targets = items(np.random.default_rng(2))
    assert TAGS.summary(pd.DataFrame(measured(8 * targets - 4, targets))) == {"mean_average_precision": 1.0}


def test_words_are_told_apart_by_number_and_not_by_spelling():
    logits, targets = items(np.random.default_rng(3), count=60, classes=20)
    table = pd.DataFrame(measured(logits, targets))
    expected = np.mean([average_precision_score(targets[:, k], logits[:, k]) for k in range(20)])
    assert TAGS.summary(table)["mean_average_precision"] == pytest.approx(expected)


def test_an_output_that_is_not_finite_is_floored_and_leaves_no_summary():
    logits, targets = items(np.random.default_rng(4), count=3)
    logits[1, 2] = np.nan
    examples = [{"targets": torch.from_numpy(said)} for said in targets]
    scored = TAGS.score([{"logits": row} for row in logits], examples, [TAGS.judged] * 3, None)
    assert [floored for _, floored in scored] == [[], ["average_precision"], []]
    assert scored[1][0] == {"average_precision": 0.0}
    assert TAGS.summary(pd.DataFrame([values for values, _ in scored])) == {}
    assert TAGS.summary(pd.DataFrame([scored[1][0]])) == {}


def test_the_constant_control_is_right_as_often_as_words_are_said():
    classes = len(word_scenes("tags").classes)
    examples = [word_scenes("tags").example(item) for item in word_scenes("tags").items("validation", 60)]
    control = TAGS.constant(word_scenes("tags"))
    table = pd.DataFrame([TAGS.measure(control, example) for example in examples])
    said = torch.stack([example["targets"] for example in examples])
    assert said.shape == (60, classes)
    np.testing.assert_allclose(table["average_precision"], said.mean(1), rtol=1e-5)
    assert TAGS.summary(table)["mean_average_precision"] == pytest.approx(float(said.mean()), rel=1e-5)
