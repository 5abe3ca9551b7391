"""What every registered loss must do. A new loss is tested as soon as it is registered."""

import inspect
import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import harness.losses
from harness.errors import UserError
from harness.losses import all_losses, build
from harness.metrics import METRICS

from . import fields as made
from .fields import activate, evaluate, learned, make, perfect, stress

LOSSES = list(all_losses().values())
PENALTIES = [info for info in LOSSES if "parameters" in info.fields]
BATCHED = [info for info in LOSSES if info not in PENALTIES]
ITEMWISE = [info for info in BATCHED if not info.batchwise]
LEARNABLE = [info for info in LOSSES if learned(make(info))]


def every(infos):
    return pytest.mark.parametrize("info", infos, ids=lambda info: info.name)


def grown(leaves, dtype=None):
    """Leaves ready for a backward pass, in another precision if asked."""
    return {
        name: leaf.detach()
        .to(dtype if dtype and leaf.is_floating_point() else leaf.dtype)
        .requires_grad_(name in learned(leaves))
        for name, leaf in leaves.items()
    }


CASES = [pytest.param(info, case, id=f"{info.name}, {case}") for info in LOSSES for case in stress(info)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("info", "case"), CASES)
def test_value_and_gradient_are_finite(info, case, dtype):
    leaves = grown(stress(info)[case], dtype)
    value = build(info.name, sizes=made.SIZES).train()(activate(leaves))
    value.sum().backward()
    assert value.dtype == dtype
    assert value.isfinite().all()
    for name in learned(leaves):
        assert leaves[name].grad.isfinite().all()
    if (minimum := info.minimum()) is not None:
        assert (value >= minimum - 1e-5 * (1 + abs(minimum))).all()


@every(BATCHED)
def test_there_is_one_value_a_row(info):
    assert evaluate(info, make(info)).shape == (made.BATCH,)
    assert evaluate(info, make(info, optional=False)).shape == (made.BATCH,)


@every(PENALTIES)
def test_a_penalty_is_a_scalar(info):
    assert evaluate(info, make(info)).shape == ()


@every(ITEMWISE)
def test_an_item_alone_has_its_value_in_a_padded_batch(info):
    leaves = make(info)
    together = evaluate(info, made.spoil_padding(leaves))
    for item in range(made.BATCH):
        single = made.alone(leaves, item)
        torch.testing.assert_close(evaluate(info, single)[0], together[item], rtol=1e-6, atol=1e-9)
        bare = {name: leaf for name, leaf in single.items() if name not in info.optional_fields}
        torch.testing.assert_close(evaluate(info, bare)[0], together[item], rtol=1e-6, atol=1e-9)


@every(ITEMWISE)
def test_a_broken_item_leaves_the_others_alone(info):
    leaves = make(info)
    broken = leaves | {name: leaves[name].index_fill(0, torch.tensor([1]), torch.nan) for name in learned(leaves)}
    others = [0, 2, 3]
    torch.testing.assert_close(evaluate(info, broken)[others], evaluate(info, leaves)[others])


@every(BATCHED)
def test_permuting_the_batch_permutes_the_values(info):
    leaves, order = make(info), torch.tensor([2, 0, 3, 1])
    permuted = {name: leaf[order] for name, leaf in leaves.items()}
    torch.testing.assert_close(evaluate(info, permuted), evaluate(info, leaves)[order])


@every(LOSSES)
def test_single_precision_is_within_a_thousandth_of_double(info):
    leaves = make(info, samples=20_000)
    single, double = grown(leaves, torch.float32), grown(leaves)
    value, exact = evaluate(info, single), evaluate(info, double)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, rtol=1e-3, atol=1e-3)
    value.sum().backward()
    exact.sum().backward()
    for name in learned(leaves):
        assert (single[name].grad - double[name].grad).norm() <= 1e-3 * double[name].grad.norm()


@pytest.mark.parametrize(("info", "case"), CASES)
def test_single_precision_keeps_up_where_losses_break(info, case):
    leaves = stress(info)[case]
    single = evaluate(info, {name: leaf.detach() for name, leaf in grown(leaves, torch.float32).items()})
    # Of an offset the third octaves hold the window's leakage, steady but for rounding, which STOI scales to unit norm.
    atol = 0.1 if info.family == "intelligibility" and "offset" in case else 1e-3
    torch.testing.assert_close(single.double(), evaluate(info, leaves), rtol=1e-3, atol=atol)


@every(LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_under_autocast_the_loss_runs_in_float32(info, dtype):
    half = {
        name: leaf.to(dtype) if name in learned(leaves) else leaf
        for leaves in [grown(make(info), torch.float32)]
        for name, leaf in leaves.items()
    }
    half = activate({name: leaf.detach() for name, leaf in half.items()})
    with torch.autocast("cpu", dtype=dtype):
        value = build(info.name, sizes=made.SIZES).eval()(half)
    assert value.dtype == torch.float32
    assert value.isfinite().all()
    wide = {
        name: [t.float() for t in x] if isinstance(x, list) else x.float() if x.is_floating_point() else x
        for name, x in half.items()
    }
    assert torch.equal(value, build(info.name, sizes=made.SIZES).eval()(wide))


@every(LEARNABLE)
def test_the_gradient_is_the_slope(info):
    leaves = make(info, samples=64, optional=False)
    names = learned(leaves)
    loss = build(info.name, sizes=made.SIZES).eval()

    def value(*outputs):
        return loss(activate(leaves | dict(zip(names, outputs, strict=True))))

    assert torch.autograd.gradcheck(value, [leaves[name].requires_grad_() for name in names], fast_mode=True)


def drawn(setting):
    if setting.range:
        low, high = setting.range.low, setting.range.high
        return st.integers(int(low), int(high)) if setting.kind == "int" else st.floats(low, high)
    if setting.rows:
        columns = [st.integers(int(limits.low), int(limits.high)) for limits in setting.rows.columns.values()]
        return st.lists(st.tuples(*columns), min_size=1, max_size=3).map(tuple).filter(setting.rows.read)
    return st.sampled_from(setting.choices or (True, False))


@every([info for info in LOSSES if info.bound is not None])
@hypothesis_settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_no_value_is_below_the_minimum(info, data):
    settings = {name: data.draw(drawn(setting), label=name) for name, setting in info.settings.items()}
    leaves = make(
        info, seed=data.draw(st.integers(0, 1000)), samples=data.draw(st.sampled_from([1, 2, 64, 900])), optional=False
    )
    best = perfect(leaves)
    closeness, gain = data.draw(st.sampled_from([0, 1e-6, 0.01, 1])), 10 ** data.draw(st.floats(-4, 4))
    near = {name: gain * (best[name] + closeness * (leaves[name] - best[name])) for name in learned(leaves)}
    minimum = info.minimum(settings)
    assert (evaluate(info, leaves | near, settings) >= minimum - 1e-9 * (1 + abs(minimum))).all()


@every(LEARNABLE)
def test_nothing_is_better_than_the_perfect_output(info):
    leaves = make(info)
    assert (evaluate(info, perfect(leaves)) <= evaluate(info, leaves)).all()


@every(LEARNABLE)
def test_a_small_step_down_the_gradient_lowers_the_loss(info):
    leaves = grown(make(info))
    before = evaluate(info, leaves).mean()
    before.backward()
    with torch.no_grad():
        step = {
            n: leaves[n] - 1e-3 * leaves[n].norm() * leaves[n].grad / leaves[n].grad.norm() for n in learned(leaves)
        }
        assert evaluate(info, leaves | step).mean() < before


@every(LOSSES)
def test_the_inputs_are_left_as_they_were(info):
    leaves = make(info)
    before = {name: leaf.clone() for name, leaf in leaves.items()}
    evaluate(info, leaves)
    for name in leaves:
        assert torch.equal(leaves[name], before[name])


@pytest.mark.parametrize(
    "setting", [s for info in LOSSES for s in info.settings.values()], ids=lambda s: f"{s.loss}.{s.name}"
)
def test_a_setting_out_of_range_is_an_error_that_tells_the_range(setting):
    wrong = [None, "x", float("nan"), float("inf")]
    if setting.range:
        span = setting.range.high - setting.range.low
        wrong += [setting.range.low - span, setting.range.high + span, True]
    if setting.rows:
        row = setting.default[0]
        wrong += [(), 1, (row[:-1],), ((*row, 1),), ((*row[:-1], 0.5),), ((*row[:-1], 10**9),), ((*row[:-1], True),)]
    for value in wrong:
        with pytest.raises(UserError) as error:
            build(setting.loss, {setting.name: value}, made.SIZES)
        assert f"{setting.loss}.{setting.name} = {value!r}" in str(error.value)
        assert setting.valid in str(error.value)


@every(LOSSES)
def test_every_name_can_be_imported_and_called_in_anybodys_loop(info):
    for name in (info.name, *info.aliases):
        assert getattr(harness.losses, name) is info.function
    leaves = make(info)
    if inspect.isclass(info.function):
        value = info.function(**{size: made.SIZES[size] for size in info.sizes}).eval()(**activate(leaves))
    else:
        value = info.function(**activate(leaves))
    assert torch.equal(value, evaluate(info, leaves))


@every(LOSSES)
def test_a_loss_documents_itself(info):
    assert info.summary
    assert info.unit
    assert info.version >= 1
    assert set(info.targets) <= set(METRICS)
    assert info.minimum() is None or math.isfinite(info.minimum())


# A tensor of the meta device has a shape and no values: it cannot become a number, nor decide a branch or a shape. Where a
# loss would wait for a GPU, it fails here. torch's own CTC reads the lengths on the CPU.
@every([info for info in LOSSES if info.name != "ctc"])
def test_no_value_is_looked_at_on_the_way(info):
    leaves = grown({name: leaf.to("meta") for name, leaf in make(info).items()})
    value = build(info.name, sizes=made.SIZES).to("meta").train()(activate(leaves))
    assert value.device.type == "meta"
    value.sum().backward()


class Calls(TorchDispatchMode):
    """How often torch was called."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        return function(*args, **kwargs or {})


@every(BATCHED)
def test_items_are_not_taken_one_by_one(info):
    counts = []
    for items in (2, made.BATCH):
        leaves = grown({name: leaf[:items] for name, leaf in make(info).items()})
        loss = build(info.name, sizes=made.SIZES).eval()
        loss(activate(leaves))  # constants are made in the first call
        with Calls() as calls:
            loss(activate(leaves)).sum().backward()
        counts.append(calls.count)
    assert counts[0] == counts[1]


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.mark.cuda
@needs_gpu
@every(LOSSES)
def test_a_gpu_gives_the_same_value_and_gradient(info):
    on_cpu, on_gpu = grown(make(info), torch.float32), {}
    for name, leaf in on_cpu.items():
        on_gpu[name] = leaf.detach().cuda().requires_grad_(leaf.requires_grad)
    value = build(info.name, sizes=made.SIZES).cuda().eval()(activate(on_gpu))
    expected = evaluate(info, on_cpu)
    torch.testing.assert_close(value.cpu(), expected, rtol=1e-3, atol=1e-4)
    value.sum().backward()
    expected.sum().backward()
    for name in learned(on_cpu):
        torch.testing.assert_close(on_gpu[name].grad.cpu(), on_cpu[name].grad, rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
@needs_gpu
@every([info for info in LOSSES if info.name != "ctc"])  # torch's own CTC reads the lengths on the CPU
def test_a_gpu_is_never_waited_for(info):
    loss = build(info.name, sizes=made.SIZES).cuda().train()
    fields = activate({name: leaf.cuda() for name, leaf in make(info).items()})
    loss(fields)  # constants are made in the first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(fields)
    finally:
        torch.cuda.set_sync_debug_mode("default")
