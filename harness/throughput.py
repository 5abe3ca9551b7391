"""What a loss costs: alone (forward and backward), and in a training step. Measure on an idle device."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch

from harness import loads, losses, models, train
from harness.tasks.fields import complete

MIN_RUN_SECONDS = 0.4
STEPS = 12
ROUNDS = 3  # in each of which a loss and what it is compared with take turns: other work on the machine slows both

BASELINE = "mse"  # of losses alone

Batches = list[dict[str, torch.Tensor]]
Sizes = Mapping[str, int] | None


@dataclass(frozen=True)
class Cost:
    """One row of `throughput.csv`. Times in ms, medians over rounds; `ratio_to_mse`: of loss_ms to the baseline's, `step_ratio`: of
    step_ms to that under the task's reference loss, medians of the ratios of each round."""

    loss: str
    device: str
    threads: int
    dtype: str
    loss_ms: float
    loss_ms_iqr: float
    ratio_to_mse: float
    step_ms: float
    step_ratio: float
    updates_per_s: float
    audio_s_per_s: float
    peak_mib: float

    def row(self) -> dict[str, str | int | float]:
        return asdict(self)


def timed(function: Callable[[], object], seconds: float | None = None) -> tuple[float, float]:
    """Median and interquartile range in ms of one call, after a warm-up; the timer synchronises a GPU around its blocks."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns of a missing CUDA when imported
    from torch.utils.benchmark import Timer

    function()
    timer = Timer("f()", globals={"f": function}, num_threads=torch.get_num_threads())
    measured = timer.blocked_autorange(min_run_time=MIN_RUN_SECONDS if seconds is None else seconds)
    return measured.median * 1e3, measured.iqr * 1e3


def in_turn(one: Callable[[], float], other: Callable[[], float]) -> tuple[float, float]:
    """Median of what `one` measures, and of its ratio to what `other` measures, over ROUNDS in which both take their turn."""
    rounds = [(one(), other()) for _ in range(ROUNDS)]
    return statistics.median(a for a, _ in rounds), statistics.median(a / b for a, b in rounds)


def peak_memory(function: Callable[[], object], device: torch.device) -> float:
    """Most memory that one call holds above what was held before it, in MiB."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    held = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20


def alone(objective: losses.Objective, device: torch.device) -> Callable[[], None]:
    """Forward and backward of a loss on the load of its kind, to be timed."""
    needed = (*objective.combination.fields, *objective.combination.optional_fields)
    given = loads.load(objective.combination.fields, device)
    predicted = [field for field in given.values() if field.requires_grad]
    weights = {"parameters": [torch.ones(512, 512, device=device, requires_grad=True)]}
    if objective.prepares:  # without a model, what it would output stands for what its outputs share
        objective.prepare([(complete({**given, **weights}, needed), predicted)], predicted, updates=STEPS)

    def call() -> None:
        for field in predicted:
            field.grad = None
        objective(complete({**given, **weights}, needed))[0].backward()

    return call


def training_step(
    model_name: str,
    expression: str,
    batches: Batches,
    device: torch.device,
    sizes: Sizes = None,
    weighting: str = "fixed",
) -> float:
    """Median ms of one update in the harness's own loop on ready batches, after as many again to warm up."""
    torch.manual_seed(0)
    model = models.build(model_name, sizes=sizes).to(device)
    objective = losses.Objective(losses.parse(expression), weighting, sizes).to(device)
    recipe = train.Recipe(2 * STEPS, 1e-3, 0.01, 0.05, 10.0)
    stamps: list[float] = []

    def batch(step: int) -> dict[str, torch.Tensor]:
        _synchronise(device)
        stamps.append(time.perf_counter())
        return batches[step % len(batches)]

    train.fit(model, objective, batch, recipe, device, inputs=models.get(model_name).fields)
    return 1e3 * statistics.median(b - a for a, b in zip(stamps[STEPS:], stamps[STEPS + 1 :], strict=False))


def overhead(
    model_name: str,
    expression: str,
    batches: Batches,
    device: torch.device,
    rounds: int = 7,
    sizes: Sizes = None,
) -> list[float]:
    """What the harness's loop costs beside a bare one: ratios of time for the same model, loss and batches, taken in turn."""
    ratios = []
    for _ in range(rounds):
        bare = _bare_loop(model_name, expression, batches, device, sizes)
        torch.manual_seed(0)
        model = models.build(model_name, sizes=sizes).to(device)
        objective = losses.Objective(losses.parse(expression), sizes=sizes).to(device)
        recipe = train.Recipe(2 * STEPS, 1e-3, 0.01, 0.05, 10.0)
        start = time.perf_counter()
        train.fit(
            model,
            objective,
            lambda step: batches[step % len(batches)],
            recipe,
            device,
            inputs=models.get(model_name).fields,
        )
        _synchronise(device)
        ratios.append((time.perf_counter() - start) / bare)
    return ratios


def _bare_loop(model_name: str, expression: str, batches: Batches, device: torch.device, sizes: Sizes) -> float:
    """Seconds of the plainest loop: forward, loss, backward, update."""
    torch.manual_seed(0)
    model = models.build(model_name, sizes=sizes).to(device)
    name = losses.parse(expression).terms[0].name
    loss, needed = getattr(losses, name), losses.get(name).fields
    inputs: tuple[str, ...] = models.get(model_name).fields
    optimiser: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-12)
    start = time.perf_counter()
    for step in range(2 * STEPS):
        fields = batches[step % len(batches)]
        fields = complete(fields | model(*(fields[name] for name in inputs)), needed)
        value = loss(*(fields[name] for name in needed)).mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def shown(expression: str, weighting: str) -> str:
    """A loss as rows name it: with its weighting, unless that is `fixed`."""
    return expression if weighting == "fixed" else f"{expression} ({weighting})"


def measure(
    expression: str,
    model_name: str,
    batches: Batches,
    device: torch.device,
    name: str,
    reference: str,
    sizes: Sizes = None,
    weighting: str = "fixed",
) -> Cost:
    """The cost of one loss under a weighting on this device. batches: ready training batches, (items, samples) fields; name: the
    device's; reference: of the task, beside which steps are measured; sizes: what models, and losses with state, are built for in
    training."""
    base, own = (
        alone(losses.Objective(losses.parse(text), how, loads.SIZES).to(device), device)
        for text, how in ((BASELINE, "fixed"), (expression, weighting))
    )
    combination = losses.parse(expression)
    spreads = []

    def time_loss() -> float:
        median, spread = timed(own, MIN_RUN_SECONDS / ROUNDS)
        spreads.append(spread)
        return median

    def step(text: str, how: str) -> float:
        return training_step(model_name, text, batches, device, sizes=sizes, weighting=how)

    loss_ms, ratio = in_turn(time_loss, lambda: timed(base, MIN_RUN_SECONDS / ROUNDS)[0])
    step_ms, step_ratio = in_turn(lambda: step(expression, weighting), lambda: step(reference, "fixed"))
    items, samples = batches[0]["noisy"].shape
    return Cost(
        loss=shown(combination.expression, weighting),
        device=name,
        threads=torch.get_num_threads(),
        dtype="float32",
        loss_ms=loss_ms,
        loss_ms_iqr=statistics.median(spreads),
        ratio_to_mse=1.0 if combination.expression == BASELINE else ratio,
        step_ms=step_ms,
        step_ratio=1.0 if combination.expression == reference else step_ratio,
        updates_per_s=1e3 / step_ms,
        audio_s_per_s=1e3 / step_ms * items * samples / loads.RATE,
        peak_mib=peak_memory(own, device),
    )
