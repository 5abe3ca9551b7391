"""Combinations trained under weightings, on real scenes: what is measured before, followed during and left after."""

import pytest
import torch
from torch import nn

from harness import losses, models, spec, tasks, train
from harness.losses import Objective, all_weightings
from harness.train import Curves, Recipe, fit
from tests.real import CPU, short_scenes, word_scenes

RECIPE = {"lr": 3e-3, "weight_decay": 0.01, "warmup": 0.05, "clip_percentile": 10.0}
WEIGHTINGS = [name if name != "frozen" else "frozen(weights=(1, 0.5))" for name in all_weightings()]


def batches(step: int) -> dict[str, torch.Tensor]:
    return short_scenes().batch(0, step, 2, CPU)


def denoiser(expression="mse + si_sdr", weighting="uncertainty", updates=3, bf16=False) -> tuple[nn.Module, Curves]:
    torch.manual_seed(0)
    model = models.build("gru_mask")
    objective = Objective(losses.parse(expression), weighting)
    return model, fit(model, objective, batches, Recipe(updates, **RECIPE, bf16=bf16), CPU, inputs=("noisy",))


def listener(task: str, expression: str, weighting: str, updates=2) -> tuple[nn.Module, Curves]:
    """The task's own model, on its own words."""
    scenes = word_scenes(task)
    sizes = tasks.get(task).sizes(scenes) | {"dim": 64}
    torch.manual_seed(0)
    model = models.build(tasks.get(task).model, sizes=sizes)
    objective = Objective(losses.parse(expression), weighting, sizes)
    made = fit(
        model, objective, lambda step: scenes.batch(0, step, 6, CPU), Recipe(updates, **RECIPE), CPU, inputs=("noisy",)
    )
    return model, made


def vector(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def column(curves: Curves, name: str) -> list[float]:
    return [row[2 + curves.columns.index(name)] for row in curves.rows]


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_weights_of_every_update_are_followed_with_terms_and_products(weighting):
    _, curves = denoiser(weighting=weighting)
    names = ["mse", "si_sdr"]
    more = [f"log_variance/{name}" for name in names] if weighting == "uncertainty" else []
    beside = [f"weight/{name}" for name in names] + more + [f"product/{name}" for name in names]
    assert curves.columns == ["total", *names, *beside, "gradient_norm", "lr"]
    for name in names:
        weights, raw = column(curves, f"weight/{name}"), column(curves, name)
        assert all(weight > 0 for weight in weights)
        assert column(curves, f"product/{name}") == pytest.approx([w * r for w, r in zip(weights, raw, strict=True)])
    _, alone = denoiser("mse", "fixed")
    assert column(curves, "mse")[0] == column(alone, "mse")[0]  # raw, on the same batch from the same weights
    assert alone.columns == ["total", "mse", "gradient_norm", "lr"]


def test_the_first_weights_are_those_of_the_untrained_net():
    torch.manual_seed(0)
    model, objective = models.build("gru_mask"), Objective(losses.parse("mse + si_sdr"))
    found = train.initial(model, objective, batches, ("noisy",))
    by_hand, slopes = [], []
    for step in range(train.UNTRAINED_BATCHES):
        batch = batches(step)
        estimate = model(batch["noisy"])["estimate"].detach().requires_grad_()
        means = [loss(estimate, batch["clean"]).mean() for loss in (losses.mse, losses.si_sdr)]
        by_hand.append(torch.stack(means).detach())
        slopes.append(torch.stack([torch.autograd.grad(mean, estimate)[0].norm() for mean in means]))
    terms, gradients = torch.stack(by_hand).mean(0), torch.stack(slopes).mean(0)
    torch.testing.assert_close(found["terms"], terms)
    torch.testing.assert_close(found["output_gradients"], gradients)
    heights = terms - torch.tensor([0.0, -30.0])
    for weighting, weights in (("equal", 1 / heights), ("uncertainty", 0.5 / heights), ("equal_grad", 1 / gradients)):
        _, curves = denoiser(weighting=weighting, updates=1)
        first = [column(curves, f"weight/{name}")[0] for name in ("mse", "si_sdr")]
        assert first == pytest.approx(weights.tolist(), rel=1e-4)


def test_looking_at_the_untrained_net_changes_no_weight_no_centre_and_no_random_number():
    """Under the weights that `equal` finds, a training that looks at nothing is the same: features are hidden at random, and
    centres move with each look."""
    looked, curves = listener("keywords", "cross_entropy + center", "equal", updates=3)
    weights = tuple(column(curves, f"weight/{name}")[0] for name in ("cross_entropy", "center"))
    blind, again = listener("keywords", "cross_entropy + center", f"frozen(weights={weights!r})", updates=3)
    assert torch.equal(vector(looked), vector(blind))
    assert column(curves, "center") == column(again, "center")


def test_a_term_times_1000_makes_no_difference_to_what_is_learned():
    plain, loud = (denoiser(f"{factor}mse + si_sdr", updates=8)[0] for factor in ("", "1000*"))
    torch.manual_seed(0)
    moved = vector(plain) - vector(models.build("gru_mask"))
    assert (vector(loud) - vector(plain)).norm() < 1e-3 * moved.norm()


def test_log_variances_learn_at_ten_times_the_rate_and_not_under_decay():
    _, curves = denoiser("10*mse + 0.1*si_sdr", "uncertainty(s0='zero')", updates=2)
    moved = [abs(second - first) for first, second in [column(curves, f"log_variance/{n}") for n in ("mse", "si_sdr")]]
    # Adam's first step is as long as the rate, which is the highest where one update is all of the warm-up.
    assert moved == pytest.approx([0.03, 0.03], rel=1e-3)


def test_how_the_model_moves_is_clipped_by_its_own_gradients_alone():
    """A log-variance far from its optimum has a large gradient."""
    _, curves = denoiser("1e4*mse + si_sdr", "uncertainty(s0='zero')", updates=1)
    _, fixed = denoiser("1e4*mse + si_sdr", f"frozen(weights=({0.5e4}, 0.5))", updates=1)
    assert column(curves, "gradient_norm") == pytest.approx(column(fixed, "gradient_norm"), rel=1e-5)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_word_and_its_boundaries_train_together(weighting):
    model, curves = listener("locate", "kl_box + cross_entropy", weighting)
    assert len(curves.rows) == 2
    assert vector(model).isfinite().all()


@pytest.mark.parametrize(
    ("task", "expression", "weighting"),
    [
        ("keywords", "cross_entropy + contrastive", "uncertainty"),
        ("keywords", "cross_entropy + 0.01*center", "gradnorm"),
        ("keywords", "aam_softmax + triplet_margin + l2_penalty", "equal_grad"),
        ("tags", "bce_with_logits + multi_label_margin", "uncertainty"),
        ("digits", "ctc + 1e-5*l2_penalty", "equal"),
        ("count", "poisson_nll(deviance=True) + 1e-5*l1_penalty", "dwa"),
        ("locate", "kl_box + gaussian_nll + focal + center", "gradnorm"),
    ],
)
def test_losses_on_different_fields_of_a_task_are_combined(task, expression, weighting):
    spec.check_fit(expression, task)
    _, curves = listener(task, expression, weighting)
    for name in losses.parse(expression).names:
        assert all(weight > 0 for weight in column(curves, f"weight/{name}"))


@pytest.mark.parametrize("weighting", ["uncertainty", "gradnorm", "equal_grad"])
def test_weights_in_bfloat16_are_close_to_those_in_single_precision(weighting):
    _, exact = denoiser(weighting=weighting)
    _, rough = denoiser(weighting=weighting, bf16=True)
    for name in ("mse", "si_sdr"):
        assert column(rough, f"weight/{name}") == pytest.approx(column(exact, f"weight/{name}"), rel=0.05)
