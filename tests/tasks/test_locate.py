import numpy as np
import pytest
import torch

from harness import tasks
from harness.data.audio import BOUNDARY_SECONDS
from tests.real import word_scenes

LOCATE = tasks.get("locate")


def measured(boundary, target=(4.0, 8.0), logits=(0.0, 1.0), label=1) -> dict[str, float]:
    output = {"boundary": np.array(boundary, np.float32), "logits": np.array(logits, np.float32)}
    return LOCATE.measure(output, {"target_boundary": torch.tensor(target), "label": torch.tensor(label)})


@pytest.mark.parametrize(
    ("boundary", "iou"),
    [
        ((4, 8), 1.0),
        ((4, 6), 0.5),  # half of the word
        ((2, 10), 0.5),  # the word and as much again
        ((6, 10), 2 / 6),
        ((5, 7), 0.5),
        ((8, 12), 0.0),  # it begins where the word ends
        ((10, 12), 0.0),
        ((-4, 6), 2 / 12),  # it begins before the clip
        ((6, 6), 0.0),  # nothing
        ((8, 4), 0.0),  # it ends before it begins
    ],
)
def test_iou_is_what_is_shared_over_what_is_covered(boundary, iou):
    assert measured(boundary)["iou"] == pytest.approx(iou)


def test_accuracy_is_of_the_word():
    assert measured((4, 8))["accuracy"] == 1
    assert measured((4, 8), label=0)["accuracy"] == 0


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_what_is_not_finite_is_floored_alone(broken):
    # Not even where the word is the first, which a maximum over NaN would name.
    outputs = [
        {"boundary": np.array([broken, 8.0]), "logits": np.array([1.0, 0.0])},
        {"boundary": np.array([4.0, 8.0]), "logits": np.array([broken, 0.0])},
    ]
    examples = [{"target_boundary": torch.tensor([4.0, 8.0]), "label": torch.tensor(0)}] * 2
    assert LOCATE.score(outputs, examples, [LOCATE.judged] * 2, None) == [
        ({"iou": 0.0, "accuracy": 1.0}, ["iou"]),
        ({"iou": 1.0, "accuracy": 0.0}, ["accuracy"]),
    ]


def test_the_constant_control_is_the_middle_half_and_the_first_word():
    scenes = word_scenes("locate")
    made = LOCATE.constant(scenes)
    seconds = made["boundary"] * BOUNDARY_SECONDS
    np.testing.assert_allclose(seconds, [0.25 * scenes.rule.seconds, 0.75 * scenes.rule.seconds])
    examples = [scenes.example(item) for item in scenes.items("validation", 40)]
    values = [LOCATE.measure(made, example) for example in examples]
    assert np.mean([value["accuracy"] for value in values]) == pytest.approx(1 / len(scenes.classes))
    assert 0.1 < np.mean([value["iou"] for value in values]) < 0.7


def test_tuning_looks_at_the_places_alone():
    assert LOCATE.selection("quality", {"iou": 0.4}, {}) == 0.4
