"""What every loss must do, whatever it measures: finite wherever it is asked, exact, blind to padding, fast on a device."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.gradcheck import GradcheckError
from torch.utils._python_dispatch import TorchDispatchMode

import harness.losses
from harness.conformance import inputs
from harness.conformance.check import Suite, shown, unlike
from harness.conformance.inputs import Leaves, activate, built, evaluate, learned, make, perfect, stress
from harness.errors import UserError
from harness.losses import LossInfo, build
from harness.metrics import METRICS
from harness.settings import Setting

CHECKS = Suite()
DRAWS = 40  # of settings and inputs in the search for a value below the minimum


def is_penalty(info: LossInfo) -> bool:
    return info.penalises


def is_batched(info: LossInfo) -> bool:
    return not info.penalises


def is_itemwise(info: LossInfo) -> bool:
    return is_batched(info) and not info.batchwise


def is_learnable(info: LossInfo) -> bool:
    """Whether any of its fields is what a model outputs."""
    return bool(learned(make(info)))


def reads_no_lengths_on_the_cpu(info: LossInfo) -> bool:
    """torch's own CTC does."""
    return "frame_lengths" not in info.fields


def grown(leaves: Leaves, dtype: torch.dtype | None = None) -> Leaves:
    """Leaves ready for a backward pass, in another precision if asked."""
    return {
        name: leaf.detach()
        .to(dtype if dtype and leaf.is_floating_point() else leaf.dtype)
        .requires_grad_(name in learned(leaves))
        for name, leaf in leaves.items()
    }


def below(value: torch.Tensor, minimum: float | None, tolerance: float) -> bool:
    return minimum is not None and not bool((value >= minimum - tolerance * (1 + abs(minimum))).all())


def gradient(leaf: torch.Tensor) -> torch.Tensor:
    """A leaf's gradient: zeros where the loss does not depend on it."""
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


@CHECKS.add(mend=f"take fields of these names only: {', '.join(inputs.FIELDS)}", decides=True)
def it_takes_fields_that_there_are(info: LossInfo) -> Iterator[str]:
    if strange := [name for name in info.fields + info.optional_fields if name not in inputs.FIELDS]:
        yield ", ".join(strange)


@CHECKS.add(
    mend="give it a docstring, unit= (of its value), version= of at least 1, and targets= only from the metrics"
)
def it_documents_itself(info: LossInfo) -> Iterator[str]:
    if not info.summary:
        yield "no docstring"
    if not info.unit:
        yield "no unit"
    if info.version < 1:
        yield f"version {info.version}"
    if strange := set(info.targets) - set(METRICS):
        yield f"targets {', '.join(sorted(strange))} are no metrics; there are: {', '.join(METRICS)}"
    minimum = info.minimum()
    if minimum is not None and not math.isfinite(minimum):
        yield f"minimum {minimum}; None says that there is none"


@CHECKS.add(mend="reduce over all axes but the first: return (batch,)", applies=is_batched, decides=True)
def there_is_one_value_a_row(info: LossInfo) -> Iterator[str]:
    for optional in (True, False):
        shape = tuple(evaluate(info, make(info, optional=optional)).shape)
        if shape != (inputs.BATCH,):
            yield f"shape {shape} for a batch of {inputs.BATCH}{'' if optional else ', without the optional fields'}"


@CHECKS.add(mend="sum over all weights: return a tensor without axes", applies=is_penalty, decides=True)
def a_penalty_is_a_scalar(info: LossInfo) -> Iterator[str]:
    shape = tuple(evaluate(info, make(info)).shape)
    if shape != ():
        yield f"shape {shape}"


@CHECKS.add(
    mend="keep what is divided by, rooted or logged above 0, as in (x.square() + eps).sqrt() or x.clamp(min=eps): torch.where "
    "around the result does not save the gradient"
)
def value_and_gradient_are_finite(info: LossInfo) -> Iterator[str]:
    for dtype in (torch.float32, torch.float64):
        for case, leaves in stress(info).items():
            ready = grown(leaves, dtype)
            value = built(info).train()(activate(ready))
            value.sum().backward()
            where = f"{case} ({dtype})".replace("torch.", "")
            if value.dtype != dtype:
                yield f"{where}: a value in {value.dtype}"
            if not value.isfinite().all():
                yield f"{where}: value {shown(value)}"
            for name in learned(ready):
                if not gradient(ready[name]).isfinite().all():
                    yield f"{where}: gradient by {name}"
            if below(value, info.minimum(), 1e-5):
                yield f"{where}: value {shown(value)} below the minimum {info.minimum()}"


@CHECKS.add(
    mend="take the optional field lengths, hide what lies behind it, and divide by it and not by the size of the axis",
    applies=is_itemwise,
)
def an_item_alone_has_its_value_in_a_padded_batch(info: LossInfo) -> Iterator[str]:
    leaves = make(info)
    together = evaluate(info, inputs.spoil_padding(leaves))
    for item in range(inputs.BATCH):
        single = inputs.alone(leaves, item)
        bare = {name: leaf for name, leaf in single.items() if name not in info.optional_fields}
        for fields, how in ((single, "alone"), (bare, "alone, without the optional fields")):
            if fault := unlike(evaluate(info, fields)[0], together[item], rtol=1e-6, atol=1e-9):
                yield f"item {item + 1} {how}: {fault}"


@CHECKS.add(
    mend="keep the items apart (no sum, mean or norm over the first axis), or say @loss(batchwise=True)",
    applies=is_itemwise,
)
def a_broken_item_leaves_the_others_alone(info: LossInfo) -> Iterator[str]:
    leaves = make(info)
    broken = leaves | {name: leaves[name].index_fill(0, torch.tensor([1]), torch.nan) for name in learned(leaves)}
    others = [0, 2, 3]
    if fault := unlike(evaluate(info, broken)[others], evaluate(info, leaves)[others]):
        yield f"beside an item of NaN: {fault}"


@CHECKS.add(mend="treat all items alike, whatever their place in the batch", applies=is_batched)
def permuting_the_batch_permutes_the_values(info: LossInfo) -> Iterator[str]:
    leaves, order = make(info), torch.tensor([2, 0, 3, 1])
    permuted = {name: leaf[order] for name, leaf in leaves.items()}
    if fault := unlike(evaluate(info, permuted), evaluate(info, leaves)[order]):
        yield fault


@CHECKS.add(
    mend="avoid differences of large numbers and sums over long axes in small steps; make constants in the dtype of the fields"
)
def single_precision_is_within_a_thousandth_of_double(info: LossInfo) -> Iterator[str]:
    leaves = make(info, samples=20_000)
    single, double = grown(leaves, torch.float32), grown(leaves)
    value, exact = evaluate(info, single), evaluate(info, double)
    if value.dtype != torch.float32:
        yield f"a value in {value.dtype} from fields in torch.float32"
    if fault := unlike(value.double(), exact, rtol=1e-3, atol=1e-3):
        yield fault
    value.sum().backward()
    exact.sum().backward()
    for name in learned(leaves):
        error, norm = (gradient(single[name]) - gradient(double[name])).norm(), gradient(double[name]).norm()
        if not error <= 1e-3 * norm:
            yield f"gradient by {name}: off by {float(error / norm):.2g} of its norm"


@CHECKS.add(mend="choose eps so that it counts in single precision, or compute where numbers do not cancel")
def single_precision_keeps_up_where_losses_break(info: LossInfo) -> Iterator[str]:
    for case, leaves in stress(info).items():
        single = evaluate(info, {name: leaf.detach() for name, leaf in grown(leaves, torch.float32).items()})
        # Of an offset the third octaves hold the window's leakage, steady but for rounding, which STOI scales to unit norm.
        atol = 0.1 if info.family == "intelligibility" and "offset" in case else 1e-3
        if fault := unlike(single.double(), evaluate(info, leaves), rtol=1e-3, atol=atol):
            yield f"{case}: {fault}"


@CHECKS.add(mend="cast nothing to a half precision, and turn on no autocast, inside the loss")
def under_autocast_the_loss_runs_in_float32(info: LossInfo) -> Iterator[str]:
    for dtype in (torch.bfloat16, torch.float16):
        leaves = grown(make(info), torch.float32)
        short = {n: leaf.detach().to(dtype) if n in learned(leaves) else leaf.detach() for n, leaf in leaves.items()}
        half = activate(short)
        with torch.autocast("cpu", dtype=dtype):
            value = built(info).eval()(half)
        if value.dtype != torch.float32:
            yield f"{dtype}: a value in {value.dtype}"
        if not value.isfinite().all():
            yield f"{dtype}: value {shown(value)}"
        wide = {name: _widened(field) for name, field in half.items()}
        expected = built(info).eval()(wide)
        if not torch.equal(value, expected):
            yield f"{dtype}: {shown(value)} instead of {shown(expected)}"


def _widened(field: Any) -> Any:
    if isinstance(field, list):
        return [tensor.float() for tensor in field]
    return field.float() if field.is_floating_point() else field


@CHECKS.add(
    mend="keep the way from field to value differentiable: no detach, no item(), no rounding", applies=is_learnable
)
def the_gradient_is_the_slope(info: LossInfo) -> Iterator[str]:
    leaves = make(info, samples=64, optional=False)
    names = learned(leaves)
    loss = built(info).eval()

    def value(*outputs: torch.Tensor) -> torch.Tensor:
        return loss(activate(leaves | dict(zip(names, outputs, strict=True))))

    try:
        torch.autograd.gradcheck(value, [leaves[name].requires_grad_() for name in names], fast_mode=True)
    except GradcheckError as error:
        yield " ".join(str(error).split())[:160]


@CHECKS.add(
    mend="give @loss the true lower bound as minimum=, a function of the settings if it depends on them; None if none is known",
    applies=lambda info: info.bound is not None,
)
def no_value_is_below_the_minimum(info: LossInfo) -> Iterator[str]:
    chance = random.Random(0)
    for _ in range(DRAWS):
        settings = {name: drawn(setting, chance) for name, setting in info.settings.items()}
        leaves = make(info, seed=chance.randint(0, 1000), samples=chance.choice([1, 2, 64, 900]), optional=False)
        best = perfect(leaves)
        closeness, gain = chance.choice([0, 1e-6, 0.01, 1]), 10 ** chance.uniform(-4, 4)
        near = {name: gain * (best[name] + closeness * (leaves[name] - best[name])) for name in learned(leaves)}
        value, minimum = evaluate(info, leaves | near, settings), info.minimum(settings)
        if below(value, minimum, 1e-9):
            yield f"{shown(value.min())} below {minimum:g} with {settings}"
            return


def drawn(setting: Setting, chance: random.Random) -> Any:
    """A valid value of a setting, one of its ends as often as not."""
    if setting.range:
        low, high = setting.range.low, setting.range.high
        if setting.kind == "int":
            return chance.choice([int(low), int(high), chance.randint(int(low), int(high))])
        return chance.choice([float(low), float(high), chance.uniform(low, high), _between(low, high, chance)])
    if setting.rows:
        while True:
            columns = list(setting.rows.columns.values())
            rows = tuple(
                tuple(chance.randint(int(limits.low), int(limits.high)) for limits in columns)
                for _ in range(chance.randint(1, 3))
            )
            if setting.rows.read(rows):
                return rows
    if setting.each:
        limits = setting.each.limits
        return chance.choice([None, tuple(chance.uniform(limits.low, limits.high) for _ in range(inputs.CLASSES))])
    return chance.choice(list(setting.choices) or [True, False])


def _between(low: float, high: float, chance: random.Random) -> float:
    """In ratios where that is possible: a range from 1e-10 to 1 has most of its orders of magnitude near 0."""
    return math.exp(chance.uniform(math.log(low), math.log(high))) if low > 0 else chance.uniform(low, high)


@CHECKS.add(mend="check the sign: lower must be better, and the target lowest of all", applies=is_learnable)
def nothing_is_better_than_the_perfect_output(info: LossInfo) -> Iterator[str]:
    leaves = make(info)
    best, other = evaluate(info, perfect(leaves)), evaluate(info, leaves)
    if not (best <= other).all():
        yield f"the perfect output has {shown(best)}, another {shown(other)}"


@CHECKS.add(mend="check the sign, and that the gradient reaches what the model outputs", applies=is_learnable)
def a_small_step_down_the_gradient_lowers_the_loss(info: LossInfo) -> Iterator[str]:
    leaves = grown(make(info))
    before = evaluate(info, leaves).mean()
    before.backward()
    with torch.no_grad():
        step = {
            n: leaves[n] - 1e-3 * leaves[n].norm() * gradient(leaves[n]) / gradient(leaves[n]).norm()
            for n in learned(leaves)
        }
        after = evaluate(info, leaves | step).mean()
    if not after < before:
        yield f"from {float(before):.9g} to {float(after):.9g}"


@CHECKS.add(mend="change no field in place (no +=, no method that ends in _): other losses get the same tensors")
def the_inputs_are_left_as_they_were(info: LossInfo) -> Iterator[str]:
    leaves = make(info)
    before = {name: leaf.clone() for name, leaf in leaves.items()}
    evaluate(info, leaves)
    for name in leaves:
        if not torch.equal(leaves[name], before[name]):
            yield name


@CHECKS.add(
    mend="annotate each setting with its range, and let @loss read it", applies=lambda info: bool(info.settings)
)
def a_setting_out_of_range_is_an_error_that_tells_the_range(info: LossInfo) -> Iterator[str]:
    for setting in info.settings.values():
        for value in _wrong(setting):
            try:
                build(setting.owner, {setting.name: value}, inputs.SIZES)
            except UserError as error:
                if f"{setting.owner}.{setting.name} = {value!r}" not in str(error) or setting.valid not in str(error):
                    yield f"{setting.name}={value!r}: {error}"
            else:
                yield f"{setting.name}={value!r} is taken"


def _wrong(setting: Setting) -> list[Any]:
    wrong: list[Any] = ["x", float("nan"), float("inf")]
    if setting.each:
        return [*wrong, (), 1, ("x",), (True,), (float("nan"),), (setting.each.limits.low - 1,)]
    wrong.append(None)
    if setting.range:
        span = setting.range.high - setting.range.low
        wrong += [setting.range.low - span, setting.range.high + span, True]
    if setting.rows:
        row = setting.default[0]
        wrong += [(), 1, (row[:-1],), ((*row, 1),), ((*row[:-1], 0.5),), ((*row[:-1], 10**9),), ((*row[:-1], True),)]
    return wrong


@CHECKS.add(mend="return what the registered loss returns: no state between two calls, no chance")
def every_name_can_be_imported_and_called_in_anybodys_loop(info: LossInfo) -> Iterator[str]:
    for name in (info.name, *info.aliases):
        if getattr(harness.losses, name) is not info.function:
            yield f"harness.losses.{name} is something else"
    leaves = make(info)
    if inspect.isclass(info.function):
        module: Any = info.function(**{size: inputs.SIZES[size] for size in info.sizes})
        twin: Any = built(info).compute
        module.load_state_dict(twin.state_dict())  # what starts at random
        value = module.eval()(**activate(leaves))
    else:
        value = info.function(**activate(leaves))
    expected = evaluate(info, leaves)
    if not torch.equal(value, expected):
        yield f"{shown(value)} instead of {shown(expected)}"


# A tensor of the meta device has a shape and no values: it cannot become a number, nor decide a branch or a shape. Where a
# loss would wait for a GPU, it fails here.
@CHECKS.add(
    mend="no item(), float(), bool() or if on values, no indexing by a mask (torch.where instead), and make constants on the "
    "device of the fields: each look makes a GPU wait",
    applies=reads_no_lengths_on_the_cpu,
)
def no_value_is_looked_at_on_the_way(info: LossInfo) -> Iterator[str]:
    leaves = grown({name: leaf.to("meta") for name, leaf in make(info).items()})
    value = built(info).to("meta").train()(activate(leaves))
    if value.device.type != "meta":
        yield f"the value lies on {value.device}"
    value.sum().backward()


class Calls(TorchDispatchMode):
    """How often torch was called."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **kwargs or {})


@CHECKS.add(mend="compute all items at once, without a loop over the first axis", applies=is_batched)
def items_are_not_taken_one_by_one(info: LossInfo) -> Iterator[str]:
    counts = []
    for items in (2, inputs.BATCH):
        leaves = grown({name: leaf[:items] for name, leaf in make(info).items()})
        loss = built(info).eval()
        loss(activate(leaves))  # constants are made in the first call
        with Calls() as calls:
            loss(activate(leaves)).sum().backward()
        counts.append(calls.count)
    if counts[0] != counts[1]:
        yield f"{counts[0]} calls of torch for 2 items, {counts[1]} for {inputs.BATCH}"


@CHECKS.add(
    mend="make constants on the device of the fields (x.new_tensor, device=x.device), or register_buffer", cuda=True
)
def a_gpu_gives_the_same_value_and_gradient(info: LossInfo) -> Iterator[str]:
    on_cpu, on_gpu = grown(make(info), torch.float32), {}
    for name, leaf in on_cpu.items():
        on_gpu[name] = leaf.detach().cuda().requires_grad_(leaf.requires_grad)
    value = built(info).cuda().eval()(activate(on_gpu))
    expected = evaluate(info, on_cpu)
    if fault := unlike(value.cpu(), expected, rtol=1e-3, atol=1e-4):
        yield fault
    value.sum().backward()
    expected.sum().backward()
    for name in learned(on_cpu):
        if fault := unlike(gradient(on_gpu[name]).cpu(), gradient(on_cpu[name]), rtol=1e-3, atol=1e-4):
            yield f"gradient by {name}: {fault}"


@CHECKS.add(
    mend="no item(), no copy to the CPU, no indexing by a mask: each makes the GPU wait",
    applies=reads_no_lengths_on_the_cpu,
    cuda=True,
)
def a_gpu_is_never_waited_for(info: LossInfo) -> Iterator[str]:
    loss = built(info).cuda().train()
    fields = activate({name: leaf.cuda() for name, leaf in make(info).items()})
    loss(fields)  # constants are made in the first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss(fields)
    except RuntimeError as error:
        yield " ".join(str(error).split())[:160]
    finally:
        torch.cuda.set_sync_debug_mode("default")
