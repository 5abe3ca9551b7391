"""What every model must do: finite fields for any input, length and batch, all of it trainable; what a denoiser must do besides:
give a waveform as long as its input."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from harness import models, tasks
from harness.conformance.check import Suite, unlike
from harness.data.scenes import MixtureRule
from harness.models import ModelInfo

CHECKS = Suite()
SAMPLES = (1, 2, 100, 255, 256, 257, 511, 512, 513, 5000, 16_000)
SIZE = 7  # of whatever a model wants to be told the number of
ITEMS = 3  # of the mixtures that a check is given, one second each


@lru_cache(maxsize=1)
def made_up() -> Tensor:
    """Mixtures for where no recordings are, (ITEMS, 16000): voiced syllables with pauses, of three pitches and levels, in noise."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(16_000) / 16_000
    items = []
    for pitch, level in ((110, 0.2), (160, 0.05), (220, 0.1)):
        harmonics = torch.arange(1, 3500 // pitch)[:, None]
        voice = (torch.sin(2 * torch.pi * harmonics * pitch * (time + 0.002 * torch.sin(30 * time))) / harmonics).sum(0)
        syllables = torch.sin(2 * torch.pi * 3 * time).clamp(min=0) * (time > 0.1)
        speech = level * voice * syllables
        items.append(speech + 0.3 * speech.square().mean().sqrt() * torch.randn(16_000, generator=generator))
    return torch.stack(items)


def made(info: ModelInfo) -> nn.Module:
    """A new instance, in evaluation mode; always of the same initial weights."""
    torch.manual_seed(0)
    return new(info).eval()


def new(info: ModelInfo) -> nn.Module:
    """A new instance, of sizes that tell nothing."""
    return models.build(info.name, sizes=dict.fromkeys(info.sizes, SIZE))


def outputs(info: ModelInfo, model: nn.Module, noisy: Tensor) -> dict[str, Tensor]:
    """Whatever else a model takes is as long as the mixture: it gets that; as `channels` with a second one, a sample later."""
    return model(*(_heard(noisy) if field == "channels" else noisy for field in info.fields))


def _heard(noisy: Tensor) -> Tensor:
    """(batch, samples) by two microphones, (batch, 2, samples)."""
    return torch.stack([noisy, nn.functional.pad(noisy, (1, 0))[:, :-1]], 1)


def learned(info: ModelInfo, model: nn.Module, noisy: Tensor) -> dict[str, Tensor]:
    """Its outputs but for the whole numbers, such as lengths."""
    return {name: output for name, output in outputs(info, model, noisy).items() if output.is_floating_point()}


def denoises(info: ModelInfo) -> bool:
    return "estimate" in info.gives


def unlike_fields(actual: dict[str, Tensor], expected: dict[str, Tensor], rtol: float, atol: float) -> str:
    """How fields differ, in one line; "" where they are close."""
    faults = {name: unlike(actual[name], expected[name], rtol=rtol, atol=atol) for name in expected}
    return "; ".join(f"{name}: {fault}" for name, fault in faults.items() if fault)


def equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return all(torch.equal(actual[name], expected[name]) for name in expected)


def breaking(noisy: Tensor) -> dict[str, Tensor]:
    """Waveforms that break models, by name."""
    click = torch.zeros(ITEMS, 8000)
    click[:, 4000] = 1.0
    return {
        "mixtures": noisy,
        "silence": torch.zeros(2, 8000),
        "clipped": (1000 * noisy).clamp(-1, 1),
        "far over full scale": 1e4 * noisy,
        "faint": 1e-6 * noisy,
        "fainter than float32 squares": 1e-25 * noisy,
        "an offset": torch.full((2, 8000), 0.5),
        "a click": click,
        "one item": noisy[:1],
        **{f"{n} samples": noisy[:, 5000 : 5000 + n] for n in SAMPLES},
    }


@CHECKS.add(
    mend="name the fields after @model(gives=...) and forward's parameters after the task's; give it a docstring"
)
def it_gives_what_it_says_and_takes_what_a_task_gives(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    given = (*tasks.get("denoise").given, *MixtureRule(rooms="shoebox", channels=2).adds)
    if strange := [name for name in info.fields if name not in given]:
        yield f"takes {', '.join(strange)}, which no task gives; there are: {', '.join(given)}"
    if not info.summary:
        yield "no docstring"
    returned = outputs(info, made(info), noisy)
    if not isinstance(returned, dict):
        yield f"returns a {type(returned).__name__}, not a dict of fields"
    elif set(returned) != set(info.gives):
        yield f"returns {', '.join(returned)}; says {', '.join(info.gives)}"


@CHECKS.add(mend="pad what is too short, add eps to what is divided by or logged; return the input's dtype")
def the_output_is_finite_and_has_a_row_an_item(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    model = made(info)
    for case, wave in breaking(noisy).items():
        with torch.no_grad():
            fields = outputs(info, model, wave)
        for name, output in fields.items():
            if len(output) != len(wave):
                yield f"{case}: {name} of {len(output)} rows for {len(wave)} items"
            if output.is_floating_point() and output.dtype != wave.dtype:
                yield f"{case}: {name} in {output.dtype}"
            if not output.isfinite().all():
                yield f"{case}: {name} is not finite"


@CHECKS.add(mend="pad what is too short, crop to the input's length", applies=denoises)
def the_output_is_as_long_as_the_input(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    model = made(info)
    for case, wave in breaking(noisy).items():
        with torch.no_grad():
            fields = outputs(info, model, wave)
        if fields["estimate"].shape != wave.shape:
            yield f"{case}: estimate of shape {tuple(fields['estimate'].shape)} for {tuple(wave.shape)}"
        for name, output in fields.items():
            if output.shape[-1] != wave.shape[-1]:
                yield f"{case}: {name} of {output.shape[-1]} samples for {wave.shape[-1]}"


@CHECKS.add(
    mend="leave no layer unused (or freeze and do not register it), and keep what is rooted, logged or divided by above 0: the "
    "slope of sqrt and log at 0 is infinite"
)
def gradients_are_finite_for_every_input_and_reach_every_parameter(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    for case, wave in breaking(noisy).items():
        model, wave = made(info).train(), wave.clone().requires_grad_()
        total = torch.stack([(output - 0.01).square().sum() for output in learned(info, model, wave).values()]).sum()
        total.backward()
        if wave.grad is None or not wave.grad.isfinite().all():
            yield f"{case}: gradient by the input {'missing' if wave.grad is None else 'not finite'}"
        for name, parameter in model.named_parameters():
            if parameter.grad is None:
                yield f"{case}: {name} gets no gradient"
            elif not parameter.grad.isfinite().all():
                yield f"{case}: gradient by {name} not finite"
            elif case == "mixtures" and not parameter.grad.any():
                yield f"{case}: gradient by {name} is zero"


@CHECKS.add(mend="normalise within an item, never over the batch: what is judged comes one item at a time")
def items_of_a_batch_do_not_know_each_other(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    model = made(info)
    for samples in (100, 5001, 16_000):
        batch = torch.cat([noisy[:, :samples], torch.zeros(1, samples)])
        with torch.no_grad():
            together = outputs(info, model, batch)
            each = [outputs(info, model, item[None]) for item in batch]
            alone = {name: torch.cat([fields[name] for fields in each]) for name in together}
        if fault := unlike_fields(together, alone, rtol=1e-4, atol=1e-6 if denoises(info) else 1e-5):
            yield f"{samples} samples: {fault}"


@CHECKS.add(
    mend="pad before the transform (harness.signal.pad_to_hop): behind the last frame's centre the window is almost zero",
    applies=denoises,
)
def the_end_of_a_clip_is_no_louder_than_the_rest_whatever_the_weights(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    for samples in [5120 + extra for extra in (0, 1, 60, 128, 200, 255)]:
        model = made(info)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
            estimate = outputs(info, model, noisy[:, :samples])["estimate"]
        # Beside its own middle, and not its input: a model may amplify.
        end, middle = estimate[:, -256:].abs().max(), estimate[:, 256:-256].abs().max()
        if not end < 3 * middle:
            yield f"{samples} samples: {float(end / middle):.3g} times the middle"


@CHECKS.add(mend="no bias behind the last product with the input", applies=denoises)
def silence_in_is_silence_out(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    with torch.no_grad():
        loudest = float(outputs(info, made(info), torch.zeros(1, 4000))["estimate"].abs().max())
    if not loudest < 1e-6:
        yield f"{loudest:.3g} from silence"


@CHECKS.add(mend="let shared_parameters() return the last parameters that every output depends on, a list")
def shared_parameters_are_those_that_every_output_depends_on(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    model = made(info)
    own = {id(parameter) for parameter in model.parameters()}
    shared = list(model.shared_parameters())  # type: ignore[operator]
    if not shared:
        yield "there are none"
    if not {id(parameter) for parameter in shared} <= own:
        yield "some are not the model's"
    for name, output in learned(info, model, noisy[:1]).items():
        gradients = torch.autograd.grad(output.square().sum(), shared, retain_graph=True, allow_unused=True)
        if not all(gradient is not None and gradient.any() for gradient in gradients):
            yield f"{name} does not depend on all of them"


@CHECKS.add(mend="keep all that is learned in parameters or buffers, with tensors alone in the state")
def a_checkpoint_is_read_without_pickle_and_gives_the_same_output(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    model = made(info)
    torch.manual_seed(99)
    other = new(info).eval()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder) / "model.pt"
        torch.save(model.state_dict(), file)
        expected = outputs(info, model, noisy)
        if any(parameter.dim() > 1 for parameter in model.parameters()) and equal(
            outputs(info, other, noisy), expected
        ):
            yield "another seed's model gives the same output before it is loaded"
        other.load_state_dict(torch.load(file, weights_only=True))
        if not equal(outputs(info, other, noisy), expected):
            yield "the output is another one"


@CHECKS.add(mend="draw initial weights from torch's generator alone, all of them when the model is made")
def equal_seeds_build_equal_weights_and_other_seeds_others(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    built = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        built.append(nn.utils.parameters_to_vector(new(info).parameters()))
    if not torch.equal(built[0], built[1]):
        yield "equal seeds build different weights"
    drawn = any(parameter.dim() > 1 for parameter in made(info).parameters())
    if drawn and torch.equal(built[0], built[2]):
        yield "different seeds build equal weights"


@CHECKS.add(mend="change the input nowhere in place, and leave chance (dropout, noise) to training mode")
def it_does_not_change_its_input_and_is_deterministic(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    model, wave = made(info), noisy.clone()
    with torch.no_grad():
        if not equal(outputs(info, model, wave), outputs(info, model, wave)):
            yield "two calls give two outputs"
    if not torch.equal(wave, noisy):
        yield "the input is another one afterwards"


@CHECKS.add(mend="keep no tensor between calls that was made in inference mode: make windows and masks in __init__")
def it_trains_after_judging_in_inference_mode(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    model = made(info)
    with torch.inference_mode():
        outputs(info, model, noisy[:1, :3333])
    torch.stack([output.sum() for output in learned(info, model.train(), noisy[:1, :3333]).values()]).sum().backward()
    yield from ()


@CHECKS.add(mend="make constants in the dtype of the input, and cast nothing to float32")
def double_precision_agrees_with_single(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    model = made(info)
    with torch.no_grad():
        single = learned(info, model, noisy)
        double = learned(info, model.double(), noisy.double())
    for name, output in double.items():
        if output.dtype != torch.float64:
            yield f"{name} in {output.dtype} from torch.float64"
        elif fault := unlike(single[name].double(), output, rtol=1e-3, atol=1e-5):
            yield f"{name}: {fault}"


@CHECKS.add(
    mend="keep transforms and what is squared or logged in float32 (torch.autocast(..., enabled=False) around them)"
)
def bfloat16_autocast_stays_close(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    model = made(info)
    with torch.no_grad():
        exact = learned(info, model, noisy)
        with torch.autocast("cpu", torch.bfloat16):
            rough = learned(info, model, noisy)
    for name, output in rough.items():
        if not output.isfinite().all():
            yield f"{name} is not finite"
        elif not (error := (output.float() - exact[name]).norm() / exact[name].norm()) < 0.05:
            yield f"{name} is off by {100 * float(error):.2g} %"


@CHECKS.add(mend="register_buffer every tensor that is no parameter: a plain attribute stays where it was made")
def all_that_it_holds_moves_with_it(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    model = made(info)
    with torch.no_grad():
        outputs(info, model, noisy[:1])  # what is kept between calls is made in the first
    for name, module in model.to("meta").named_modules():
        for attribute, value in vars(module).items():
            if isinstance(value, Tensor) and value.device.type != "meta":
                yield f"{name + '.' if name else ''}{attribute} stays on {value.device}"


@CHECKS.add(mend="make tensors on the device of the input (device=noisy.device), or register_buffer", cuda=True)
def a_gpu_gives_the_same_output_and_reaches_every_parameter(info: ModelInfo, noisy: Tensor) -> Iterator[str]:
    model = made(info)
    with torch.no_grad():
        expected = outputs(info, model, noisy)
    fields = learned(info, model.cuda().train(), noisy.cuda())
    torch.stack([output.square().sum() for output in fields.values()]).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is None or not parameter.grad.isfinite().all():
            yield f"gradient by {name}"
    with torch.no_grad():
        actual = {name: output.cpu() for name, output in outputs(info, model.eval(), noisy.cuda()).items()}
    if fault := unlike_fields(actual, expected, rtol=1e-2, atol=1e-4 if denoises(info) else 1e-3):
        yield fault
