import math
import time

import numpy as np
import pytest
import torch
from torch import nn

from harness import losses, models, train
from harness.losses import Objective, registry
from harness.train import Curves, Diverged, Recipe, fit, weights
from tests.real import CPU, short_scenes, word_scenes

RECIPE = {"lr": 3e-3, "weight_decay": 0.01, "warmup": 0.05, "clip_percentile": 10.0}


@pytest.fixture
def own_losses(monkeypatch):
    """Losses registered in a test are gone after it."""
    monkeypatch.setattr(registry, "_LOSSES", dict(registry._LOSSES))
    monkeypatch.setattr(registry, "_ALIASES", dict(registry._ALIASES))


def real(seed: int = 0, items: int = 2):
    return lambda step: short_scenes().batch(seed, step, items, CPU)


def trained(expression="si_sdr", updates=6, seed=0, batches=None, model=None, **keywords) -> tuple[nn.Module, Curves]:
    """The small GRU on half-second scenes."""
    torch.manual_seed(seed)
    model = model or models.build("gru_mask")
    watch = {"watch": keywords.pop("watch")} if "watch" in keywords else {}
    curves = fit(
        model,
        Objective(losses.parse(expression)),
        batches or real(seed),
        Recipe(updates, **(RECIPE | keywords)),
        CPU,
        inputs=("noisy",),
        **watch,
    )
    return model, curves


def vector(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


class Gain(nn.Module):
    """A filter of three taps: small enough for a loop written again."""

    def __init__(self):
        super().__init__()
        self.taps = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, noisy):
        return {"estimate": self.taps(noisy[:, None])[:, 0]}


def test_the_same_seed_twice_is_bit_equal():
    first, curves = trained(updates=8)
    second, again = trained(updates=8)
    assert torch.equal(vector(first), vector(second))
    assert [row[2:] for row in curves.rows] == [row[2:] for row in again.rows]
    other, _ = trained(updates=8, seed=1)
    assert not torch.equal(vector(first), vector(other))


def classifier(expression: str) -> torch.Tensor:
    """Weights of ds_cnn after a few updates on words."""
    scenes = word_scenes("keywords")
    sizes = {"classes": len(scenes.classes)}
    torch.manual_seed(0)
    model = models.build("ds_cnn", sizes=sizes)
    objective, recipe = Objective(losses.parse(expression), sizes=sizes), Recipe(4, **RECIPE)
    fit(model, objective, lambda step: scenes.batch(0, step, 16, CPU), recipe, CPU, inputs=("noisy",))
    return vector(model)


def test_focal_without_focus_is_cross_entropy_run_for_run_and_losses_that_are_equal_train_the_same_net():
    reference = classifier("cross_entropy")
    assert torch.equal(classifier("focal(gamma=0)"), reference)
    for equal in ("nll", "kl_div"):
        torch.testing.assert_close(classifier(equal), reference, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(classifier("multi_label_soft_margin"), classifier("soft_margin"), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(classifier("focal"), reference, rtol=1e-3, atol=1e-4)


def test_another_loss_starts_from_equal_weights_and_sees_equal_batches():
    seen: dict[str, list[torch.Tensor]] = {}
    start = {}
    for expression in ("si_sdr", "l1"):
        torch.manual_seed(5)
        model = models.build("gru_mask")
        objective = Objective(losses.parse(expression))
        start[expression] = vector(model)
        kept = seen.setdefault(expression, [])

        def batches(step: int, kept: list = kept) -> dict[str, torch.Tensor]:
            kept.append(short_scenes().batch(5, step, 2, CPU))
            return kept[-1]

        fit(model, objective, batches, Recipe(3, **RECIPE), CPU, inputs=("noisy",))
    assert torch.equal(start["si_sdr"], start["l1"])
    for a, b in zip(seen["si_sdr"], seen["l1"], strict=True):
        assert torch.equal(a["noisy"], b["noisy"])
        assert torch.equal(a["clean"], b["clean"])


def test_forty_updates_on_real_scenes_lower_the_loss_on_scenes_never_seen():
    held_out = [short_scenes().batch(1234, step, 8, CPU) for step in range(2)]

    def judge(model: nn.Module) -> float:
        with torch.no_grad():
            values = [losses.si_sdr(model(b["noisy"])["estimate"], b["clean"]).mean() for b in held_out]
        return float(torch.stack(values).mean())

    torch.manual_seed(0)
    before = judge(models.build("gru_mask"))
    model, curves = trained(updates=40, lr=1e-2, batches=real(0, 8))
    assert judge(model) < before - 0.5
    totals = [row[2] for row in curves.rows]
    assert np.mean(totals[-10:]) < np.mean(totals[:10])


@pytest.mark.parametrize("updates", [1, 2, 7, 100, 1000])
def test_the_rate_warms_up_then_falls_to_zero_after_the_last_update(updates):
    recipe = Recipe(updates, 0.01, 0.01, 0.05, 10.0)
    rates = [recipe.rate(step) for step in range(updates)]
    rising = max(1, round(0.05 * updates))
    assert rates[:rising] == pytest.approx([0.01 * (k + 1) / rising for k in range(rising)])
    assert max(rates) == pytest.approx(0.01)
    assert all(a >= b for a, b in zip(rates[rising:], rates[rising + 1 :], strict=False))
    assert min(rates) > 0
    assert updates == 1 or recipe.rate(updates) == pytest.approx(0, abs=1e-15)
    middle = rising + (updates - rising) // 2
    if (updates - rising) % 2 == 0 and updates > 2:
        assert recipe.rate(middle) == pytest.approx(0.005)


def test_without_warm_up_the_first_update_has_the_full_rate():
    assert Recipe(100, 0.01, 0.0, 0.0, 10.0).rate(0) == pytest.approx(0.01)


def test_the_loop_is_adamw_with_autoclip_as_written_down_here_with_numpys_percentile():
    updates, percentile, decay = 25, 30.0, 0.05
    torch.manual_seed(3)
    reference, model = Gain(), Gain()
    model.load_state_dict(reference.state_dict())
    _, curves = trained("mse", updates, model=model, lr=0.02, weight_decay=decay, clip_percentile=percentile)

    first = [torch.zeros_like(p) for p in reference.parameters()]
    second = [torch.zeros_like(p) for p in reference.parameters()]
    norms: list[float] = []
    for step in range(updates):
        batch = short_scenes().batch(0, step, 2, CPU)
        value = (reference(batch["noisy"])["estimate"] - batch["clean"]).square().mean(1).mean()
        gradients = torch.autograd.grad(value, list(reference.parameters()))
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in gradients)))
        clip = min(1.0, np.percentile(norms, percentile) / norms[-1])
        rate = 0.02 if step < 1 else 0.02 * 0.5 * (1 + math.cos(math.pi * (step - 1) / (updates - 1)))
        with torch.no_grad():
            for p, g, m, v in zip(reference.parameters(), gradients, first, second, strict=True):
                m.lerp_(clip * g, 0.1)
                v.lerp_((clip * g).square(), 0.001)
                p.mul_(1 - rate * decay)
                p -= rate * (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-12)
        row = curves.rows[step]
        assert row[0] == step + 1
        assert row[2:] == pytest.approx([value.item(), value.item(), norms[-1], rate], rel=1e-4)
    torch.testing.assert_close(vector(model), vector(reference), rtol=1e-4, atol=1e-6)


def test_gradients_are_scaled_to_the_percentile_of_the_norms_so_far_and_never_up():
    rng = np.random.default_rng(0)
    sizes = rng.lognormal(0, 2, 30)
    parameters = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(1))]
    norms = torch.zeros(30)
    for step, size in enumerate(sizes):
        direction = torch.from_numpy(rng.standard_normal(7)).float()
        direction *= size / direction.norm()
        parameters[0].grad, parameters[1].grad = direction[:3].clone(), direction[3:].reshape(2, 2).clone()
        norms[step] = train._clip(parameters, norms, step, 10.0)
        after = torch.cat([parameters[0].grad, parameters[1].grad.reshape(-1)])
        limit = np.percentile(sizes[: step + 1], 10)
        assert norms[step].item() == pytest.approx(size, rel=1e-5)
        assert after.norm().item() == pytest.approx(min(size, limit), rel=1e-4)
        torch.testing.assert_close(after / after.norm(), direction / direction.norm())


def test_clipping_does_not_depend_on_the_losss_unit():
    torch.manual_seed(0)
    start = vector(models.build("gru_mask"))
    small, large = (vector(trained(expression, 10)[0]) for expression in ("mse", "1e3*mse"))
    # Not bit for bit: empty bands have gradients that are small even beside Adam's eps of 1e-12.
    assert (small - large).norm() < 0.01 * (small - start).norm()


def test_a_gradient_of_zero_does_no_harm():
    silent = {"noisy": torch.zeros(2, 4000), "clean": torch.zeros(2, 4000)}
    model, curves = trained("mse", 3, batches=lambda step: silent)
    assert vector(model).isfinite().all()
    assert [row[2] for row in curves.rows] == [0, 0, 0]


@pytest.mark.parametrize("step", [0, 3, 19, 20, 24])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_trial_and_names_its_update(step, bad):
    asked: list[int] = []

    def batches(now: int) -> dict[str, torch.Tensor]:
        asked.append(now)
        batch = {"noisy": torch.ones(2, 50), "clean": torch.zeros(2, 50)}
        if now == step:
            batch["clean"][1, 7] = bad
        return batch

    with pytest.raises(Diverged, match=f"^loss {bad} at update {step + 1}$") as caught:
        trained("mse", 25, batches=batches, model=Gain())
    assert caught.value.step == step
    assert len(asked) <= step + train.READ_EVERY


def test_a_gradient_that_is_not_finite_ends_the_trial_and_says_so(own_losses):
    @losses.loss
    def flat_root(estimate, clean):
        """Zero, with an infinite slope."""
        return (estimate * 0).square().sum(-1).sqrt() + clean.mean(-1)

    with pytest.raises(Diverged, match=r"^gradient not finite at update 1$"):
        trained("flat_root", 3)


def test_an_exploding_training_ends_within_its_updates():
    with pytest.raises(Diverged, match=r"(loss (inf|nan)|gradient not finite) at update \d+$"):
        trained("mse", 60, lr=1e18, weight_decay=0.0, clip_percentile=100.0, model=Gain())


def test_after_a_divergence_another_trial_trains_as_if_nothing_had_been():
    expected, _ = trained(updates=3)
    with pytest.raises(Diverged):
        trained("mse", 3, batches=lambda step: {"noisy": torch.full((1, 50), math.nan), "clean": torch.zeros(1, 50)})
    again, _ = trained(updates=3)
    assert torch.equal(vector(expected), vector(again))


def test_penalised_weights_are_matrices_and_kernels_without_biases_and_norms():
    model = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.GRU(4, 2), nn.LayerNorm(2), nn.Linear(2, 1))
    found = {id(p) for p in weights(model)}
    names = {name for name, p in model.named_parameters() if id(p) in found}
    assert names == {"0.weight", "2.weight_ih_l0", "2.weight_hh_l0", "4.weight"}


def test_a_penalty_is_added_to_the_loss_with_its_weight():
    torch.manual_seed(0)
    expected = 0.5 * sum(p.square().sum() for p in weights(models.build("gru_mask"))).item()
    _, curves = trained("mse + 0.25*l2_penalty", 1)
    _, without = trained("mse", 1)
    total, mse, penalty = curves.rows[0][2:5]
    assert penalty == pytest.approx(expected, rel=1e-5)
    assert mse == pytest.approx(without.rows[0][2], rel=1e-6)
    assert total == pytest.approx(mse + 0.25 * expected, rel=1e-5)


def test_a_penalty_makes_weights_smaller():
    keywords = {"weight_decay": 0.0, "lr": 1e-2}
    plain, _ = trained("mse", 15, **keywords)
    penalised, _ = trained("mse + 0.1*l2_penalty", 15, **keywords)
    size = [sum(float(p.detach().square().sum()) for p in weights(model)) for model in (plain, penalised)]
    assert size[1] < 0.9 * size[0]


def test_derived_fields_are_made_for_a_loss_that_asks():
    _, curves = trained("sa_sdr + si_sdr", 2)
    assert curves.columns[:3] == ["total", "sa_sdr", "si_sdr"]
    assert all(len(row) == 2 + len(curves.columns) for row in curves.rows)
    for _, _, total, first, second, *_ in curves.rows:
        assert total == pytest.approx(first + second, rel=1e-5)


def test_what_a_loss_learns_joins_the_optimiser(own_losses):
    built = []

    @losses.loss
    class LearnedOffset(nn.Module):
        """Error around a learned value."""

        def __init__(self) -> None:
            super().__init__()
            self.offset = nn.Parameter(torch.zeros(1))
            built.append(self)

        def forward(self, estimate, clean):
            return (estimate - clean - self.offset - 1).square().mean(-1)

    trained("learned_offset", 10, lr=0.1)
    assert built[-1].offset.item() < -0.2


@pytest.mark.parametrize(("updates", "told"), [(1, [1]), (19, [19]), (20, [20]), (21, [20, 21]), (45, [20, 40, 45])])
def test_the_watcher_is_told_after_every_read_and_at_the_end(updates, told):
    seen: list[tuple[int, int]] = []
    batch = {"noisy": torch.randn(1, 64), "clean": torch.randn(1, 64)}
    _, curves = trained(
        "mse", updates, model=Gain(), batches=lambda step: batch, watch=lambda n, c: seen.append((n, len(c.rows)))
    )
    assert seen == [(n, n) for n in told]  # with all rows so far
    assert [row[0] for row in curves.rows] == list(range(1, updates + 1))


def test_time_spent_watching_is_not_training_time_and_batches_are_clocked_apart():
    batch = {"noisy": torch.randn(1, 64), "clean": torch.randn(1, 64)}

    def slow(step: int) -> dict[str, torch.Tensor]:
        time.sleep(0.005)
        return batch

    start = time.perf_counter()
    _, curves = trained("mse", 40, model=Gain(), batches=slow, watch=lambda n, c: time.sleep(0.5))
    passed = time.perf_counter() - start
    assert 40 * 0.005 <= curves.data_seconds <= curves.train_seconds
    assert curves.train_seconds <= passed - 2 * 0.5
    seconds = [row[1] for row in curves.rows]
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(curves.train_seconds)


def test_the_watcher_may_stop_the_trial():
    def stop(done: int, curves: Curves) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained("mse", 100, model=Gain(), watch=stop)


def test_a_watcher_that_judges_does_not_change_the_training():
    from harness import tasks

    clips = [torch.randn(3000)]
    model = models.build("gru_mask")
    plain, _ = trained(updates=22)
    torch.manual_seed(0)
    model = models.build("gru_mask")
    torch.manual_seed(0)
    models.build("gru_mask")  # as many random numbers as `plain` took

    def judge(done: int, curves: Curves) -> None:
        tasks.get("denoise").outputs(model, [{"noisy": clip} for clip in clips], CPU, lambda step: {})

    watched, _ = trained(updates=22, model=model, watch=judge)
    assert torch.equal(vector(plain), vector(watched))


def test_bfloat16_trains_too_and_close_to_single_precision():
    _, exact = trained(updates=4)
    model, rough = trained(updates=4, bf16=True)
    assert vector(model).dtype == torch.float32
    for a, b in zip(exact.rows, rough.rows, strict=True):
        assert b[2] == pytest.approx(a[2], abs=0.3)
