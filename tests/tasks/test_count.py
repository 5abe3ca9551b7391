import numpy as np
import pandas as pd
import pytest
import torch

from harness import tasks
from tests.real import word_scenes

COUNT = tasks.get("count")


def measured(expected: float, count: int) -> dict[str, float]:
    with np.errstate(divide="ignore"):
        rate = np.log(np.float32(expected))
    return COUNT.measure({"rate": rate}, {"count": torch.tensor(float(count))})


@pytest.mark.parametrize(
    ("expected", "count", "accuracy", "error"),
    [(3, 3, 1, 0), (3.4, 3, 1, 0.4), (2.6, 3, 1, 0.4), (3.6, 3, 0, 0.6), (0, 1, 0, 1), (1, 5, 0, 4)],
)
def test_the_nearest_whole_number_is_right_or_not(expected, count, accuracy, error):
    if expected == 0:
        expected = 1e-30  # the logarithm of 0 is not finite
    assert measured(expected, count) == pytest.approx({"count_accuracy": accuracy, "count_error": error}, abs=1e-6)


def test_the_summary_is_the_mean_absolute_error():
    table = pd.DataFrame([measured(3, 3), measured(2.5, 3), measured(5, 3)])
    assert COUNT.summary(table) == pytest.approx({"count_error": 2.5 / 3}, rel=1e-6)


@pytest.mark.parametrize("rate", [np.nan, np.inf, 1e30])
def test_a_rate_that_is_not_finite_is_floored_and_leaves_no_summary(rate):
    outputs = [{"rate": np.float32(rate)}, {"rate": np.float32(0)}]
    examples = [{"count": torch.tensor(1.0)}] * 2
    with np.errstate(over="ignore"):
        broken, whole = COUNT.score(outputs, examples, [COUNT.judged] * 2, None)
    assert broken[0]["count_accuracy"] == 0
    assert broken[1] == ["count_accuracy"]
    assert whole == ({"count_accuracy": 1.0, "count_error": 0.0}, [])
    assert COUNT.summary(pd.DataFrame([broken[0], whole[0]])) == {}


def test_the_constant_control_is_right_once_in_five():
    scenes = word_scenes("count")
    examples = [scenes.example(item) for item in scenes.items("validation", 50)]
    table = pd.DataFrame([COUNT.measure(COUNT.constant(scenes), example) for example in examples])
    assert table["count_accuracy"].mean() == pytest.approx(0.2, abs=0.05)
    counts = [float(example["count"]) for example in examples]
    assert COUNT.summary(table)["count_error"] == pytest.approx(np.abs(np.array(counts) - 3).mean(), rel=1e-5)
