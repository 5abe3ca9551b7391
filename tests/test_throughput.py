import math
import time

import pytest
import torch

from harness import loads, losses, throughput
from harness.losses import Objective, all_losses, all_weightings
from tests.real import CPU, short_scenes

MIB = 2**20


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Measure for a moment: what is tested is what is measured, not how well."""
    monkeypatch.setattr(throughput, "MIN_RUN_SECONDS", 0.05)
    monkeypatch.setattr(throughput, "STEPS", 3)


@pytest.fixture(scope="module")
def batches():
    return [short_scenes().batch(0, step, 2, CPU) for step in range(2)]


def test_a_call_is_timed_in_milliseconds_and_once_before_the_clock_starts():
    calls: list[float] = []

    def call() -> None:
        calls.append(time.perf_counter())
        time.sleep(0.25 if len(calls) == 1 else 0.01)

    median, spread = throughput.timed(call)
    assert 10 <= median < 50  # the first call, of 250 ms, is not in it
    assert 0 <= spread < median


def test_peak_memory_is_what_is_held_at_once():
    def floats(mib: int) -> torch.Tensor:
        return torch.empty(mib * MIB // 4)

    def one_after_the_other() -> None:
        for mib in (4, 8, 2):
            floats(mib)

    def together() -> None:
        held = [floats(mib) for mib in (4, 8, 2)]
        del held

    assert throughput.peak_memory(one_after_the_other, CPU) == pytest.approx(8, abs=0.1)
    assert throughput.peak_memory(together, CPU) == pytest.approx(14, abs=0.1)
    assert throughput.peak_memory(lambda: None, CPU) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("expression", ["mse", "si_sdr + 0.1*spectral_mag", "sa_sdr", "mse + 1e-5*l2_penalty"])
def test_a_loss_alone_has_a_time_a_spread_and_needs_room_for_its_gradient(expression):
    call = throughput.alone(Objective(losses.parse(expression)), CPU)
    (median, spread), peak = throughput.timed(call), throughput.peak_memory(call, CPU)
    assert 0.01 < median < 5000
    assert spread >= 0
    # The gradient alone is as large as the estimate: 8 x 3 s of float32.
    assert peak >= 8 * 48_000 * 4 / MIB


@pytest.mark.parametrize("weighting", [name for name in all_weightings() if name != "frozen"])
def test_a_combination_is_measured_under_every_weighting(weighting, batches, monkeypatch):
    monkeypatch.setattr(throughput, "timed", lambda function, seconds=None: (function(), (1.0, 0.0))[1])
    monkeypatch.setattr(throughput, "peak_memory", lambda function, device: 0.0)
    cost = throughput.measure("mse + si_sdr", "gru_mask", batches, CPU, "this one", "mse", weighting=weighting)
    assert cost.loss == ("mse + si_sdr" if weighting == "fixed" else f"mse + si_sdr ({weighting})")
    assert cost.step_ms > 0


@pytest.mark.parametrize("name", all_losses())
def test_every_loss_has_a_load_that_it_is_timed_on(name):
    objective = Objective(losses.parse(name), sizes=loads.SIZES)
    assert throughput.peak_memory(throughput.alone(objective, CPU), CPU) > 0  # of the gradient at the least


@pytest.mark.parametrize(
    ("fields", "shapes"),
    [
        (["estimate", "clean", "noisy"], {"estimate": (8, 48_000), "noisy": (8, 48_000)}),
        (["embedding", "label"], {"embedding": (256, 128), "logits": (256, 35), "label": (256,)}),
        (["anchor", "positive", "negative"], {"embedding": (256, 128)}),
        (["log_probs", "label"], {"logits": (256, 35)}),
        (["log_probs", "tokens"], {"log_probs": (8, 300, 32), "tokens": (8, 40)}),
        (["parameters"], {"estimate": (8, 48_000)}),
    ],
)
def test_a_load_has_the_size_of_a_usual_batch_and_gradients_where_a_model_predicts(fields, shapes):
    made = loads.load(fields, CPU)
    assert {name: tuple(made[name].shape) for name in shapes} == shapes
    assert {name for name, field in made.items() if field.requires_grad} == set(made) & set(loads.PREDICTED)


def test_a_loss_with_class_vectors_is_measured_by_the_sizes_of_its_load():
    objective = Objective(losses.parse("cross_entropy + aam_softmax"), sizes=loads.SIZES)
    call = throughput.alone(objective, CPU)
    assert 0.01 < throughput.timed(call)[0] < 500
    assert throughput.peak_memory(call, CPU) > 0


def test_a_dearer_loss_costs_more():
    cheap, dear = (throughput.alone(Objective(losses.parse(text)), CPU) for text in ("mse", "spectral_mag"))
    assert throughput.timed(dear)[0] > throughput.timed(cheap)[0]
    assert throughput.peak_memory(dear, CPU) > throughput.peak_memory(cheap, CPU)


def test_the_time_of_an_update_is_that_of_the_loop(batches):
    start = time.perf_counter()
    step = throughput.training_step("gru_mask", "mse", batches, CPU)
    passed = 1e3 * (time.perf_counter() - start)
    assert 0.5 < step < passed / 3  # eight updates and more were made in this time


def test_the_loops_overhead_is_a_ratio_for_each_round(batches):
    ratios = throughput.overhead("gru_mask", "si_sdr", batches, CPU, rounds=2)
    assert len(ratios) == 2
    assert all(0.1 < ratio < 20 for ratio in ratios)  # bounds on nonsense: other work may disturb a short measurement


def test_a_row_says_what_was_measured_where_and_agrees_with_itself(batches):
    cost = throughput.measure("1*si_sdr(max_db=30) + mse", "gru_mask", batches, CPU, "this machine", "mse")
    assert cost.loss == "si_sdr + mse"
    assert cost.device == "this machine"
    assert cost.threads == torch.get_num_threads()
    assert cost.updates_per_s * cost.step_ms == pytest.approx(1000)
    assert cost.audio_s_per_s == pytest.approx(cost.updates_per_s * 2 * 0.5)  # two items of half a second
    row = cost.row()
    assert all(math.isfinite(value) and value >= 0 for value in row.values() if isinstance(value, int | float))
    assert {"loss", "device", "threads", "dtype", "loss_ms", "ratio_to_mse", "step_ms", "peak_mib"} <= set(row)
    assert cost.ratio_to_mse > 0.5


def test_the_baseline_costs_once_itself(batches):
    cost = throughput.measure("mse", "gru_mask", batches, CPU, "this machine", "mse")
    assert cost.ratio_to_mse == cost.step_ratio == 1


def test_a_ratio_is_of_what_was_measured_in_turn():
    mine, theirs = (
        iter([10.0, 4.0, 30.0]),
        iter([20.0, 2.0, 15.0]),
    )  # the machine is busy in the first round, and in the last
    own, ratio = throughput.in_turn(mine.__next__, theirs.__next__)
    assert (own, ratio) == (10.0, 2.0)
