import numpy as np
import pytest
import torch
from torch import nn

from harness import losses, models, tasks, train
from harness.tasks.recognise import AT_ONCE, predictions
from tests.real import CPU


class Mean(nn.Module):
    """Sums what it hears, and how many clips it was given at once; noisier in training."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, noisy: torch.Tensor) -> dict[str, torch.Tensor]:
        self.batches.append(len(noisy))
        return {"sum": noisy.sum(-1) + self.training, "frames": torch.full((len(noisy),), noisy.shape[1])}


def clips(count: int) -> list[dict[str, torch.Tensor]]:
    return [{"noisy": torch.full((4,), float(place))} for place in range(count)]


def test_predictions_are_in_order_whatever_goes_through_at_once():
    model = Mean().eval()
    made = list(predictions(model, clips(AT_ONCE + 6), CPU))
    assert model.batches == [AT_ONCE, 6]
    assert [float(output["sum"]) for output in made] == [4.0 * place for place in range(AT_ONCE + 6)]
    assert {float(output["frames"]) for output in made} == {4.0}


def test_outputs_are_of_a_model_that_judges_and_training_goes_on():
    model = Mean().train()
    (made,) = tasks.get("count").outputs(model, clips(1), CPU, lambda step: {})
    assert float(made["sum"]) == 0
    assert model.training


def test_only_metrics_that_were_asked_for_are_floored():
    locate = tasks.get("locate")
    output = {"boundary": np.array([np.nan, 1.0]), "logits": np.array([np.nan, 1.0])}
    example = {"target_boundary": torch.tensor([0.0, 1.0]), "label": torch.tensor(1)}
    ((values, floored),) = locate.score([output], [example], [("iou",)], None)
    assert (values["iou"], floored) == (0.0, ["iou"])
    assert np.isnan(values["accuracy"])


def test_a_word_and_its_place_are_chosen_by_the_place_or_by_both():
    locate, means = tasks.get("locate"), {"iou": 0.6, "accuracy": 0.2}
    assert locate.selection("quality", means, {}) == 0.6
    assert locate.selection("accuracy", means, {}) == 0.2
    assert locate.selection("both", means, {}) == pytest.approx(0.4)
    assert set(locate.watched) == set(means)


def test_quality_is_the_best_watched_metric_and_another_objective_that_metric():
    keywords = tasks.get("keywords")
    means = {"accuracy": 0.3, "centroid_accuracy": 0.8}
    assert keywords.selection("quality", means, {}) == 0.8
    assert keywords.selection("accuracy", means, {}) == 0.3


@pytest.mark.parametrize("name", ["tags", "digits", "count", "locate"])
def test_a_control_says_the_same_of_every_item(name):
    from tests.real import word_scenes

    made = tasks.get(name).control("constant", clips(3), word_scenes(name), nn.Module)
    assert len(made) == 3
    assert all(output is made[0] for output in made)


@pytest.mark.parametrize(
    ("name", "loss", "left"),
    [
        ("keywords", "cross_entropy", 0.4),
        ("voices", "cross_entropy", 0.4),
        ("tags", "bce_with_logits", 0.75),
        ("digits", "ctc", 0.9),
        ("count", "poisson_nll(deviance=True)", 0.3),
        ("count", "count_mse", 0.4),
        ("locate", "kl_box", 0.4),
        ("locate", "boundary_mse", 0.3),
    ],
)
def test_a_few_updates_teach_one_batch(name, loss, left):
    task = tasks.get(name)
    scenes = task.open(task.corpus, task.rule(), None, lambda line: None, lambda *_: None)
    torch.manual_seed(0)
    model = models.build(task.model, sizes=task.sizes(scenes))
    objective, batch = losses.Objective(losses.parse(loss)), scenes.batch(0, 0, 8, CPU)
    recipe = train.Recipe(24, 2e-3, 0.01, 0.3, 10.0)
    curves = train.fit(model, objective, lambda step: batch, recipe, CPU, inputs=("noisy",))
    values = [row[2] for row in curves.rows]
    assert np.mean(values[-4:]) < left * values[0]
