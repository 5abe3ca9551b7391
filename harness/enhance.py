"""A recording of one's own through a confirmed denoiser: which run, its model, what it makes of the sound."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from harness import losses, models, tasks
from harness.data.audio import SAMPLE_RATE, active_level
from harness.errors import UserError
from harness.recording import Recording, resampled
from harness.tracking import MADE, Tracker

if TYPE_CHECKING:
    from mlflow.entities import Run

WINDOW, FADE = 60, 1  # seconds: a longer recording is taken in parts that fade into each other
FREE_LEVEL = 3.0  # dB by which SI-SDR is above SNR on test where a loss has left the level of the estimate open
WEIGHTS = "model.pt"


@dataclass(frozen=True)
class Denoiser:
    """A trained model. about: the run in words; level: dBFS of active speech, (low, high), that it was trained on; free: whether
    its loss left the level of the estimate open."""

    model: torch.nn.Module
    about: str
    level: tuple[float, float]
    free: bool


def confirmed(runs: pd.DataFrame) -> pd.DataFrame:
    """Of the runs of a report (see `report.runs.Results`) those whose weights are kept and estimate speech: one a loss,
    weighting and protocol, of the first seed that did not diverge."""
    estimating = {name for name, task in tasks.TASKS.items() if "estimate" in task.predicted}
    kept = runs[(runs["role"] != "control") & (runs["state"] == "finished") & runs["task"].isin(estimating)]
    return kept.sort_values("seed").drop_duplicates(["protocol", "loss", "weighting"])


def pick(runs: pd.DataFrame, loss: str) -> str:
    """Id of the confirmed run of a loss: that of its selected setting and first seed. UserError where there is none, or where
    several protocols have one."""
    wanted, known = losses.parse(loss).expression, confirmed(runs)
    found = known[known["loss"] == wanted]
    if found.empty:
        have = ", ".join(dict.fromkeys(known["loss"])) or "none"
        raise UserError(
            f"loss {wanted!r}: no run has confirmed it as a denoiser (confirmed: {have}); make study makes one"
        )
    if len(found) > 1:
        listed = "; ".join(
            f"--run {row.run_id} ({row.model}, {row.updates:g} updates, {row.weighting}, protocol {row.protocol})"
            for row in found.itertuples()
        )
        raise UserError(f"loss {wanted!r}: confirmed {len(found)} times; name one: {listed}")
    return str(found["run_id"].iloc[0])


def load(tracker: Tracker, run_id: str, device: torch.device) -> Denoiser:
    """The denoiser that a run has trained. UserError for a run that is not there, or that has kept no such weights."""
    run = _run(tracker, run_id)
    tags, metrics = run.data.tags, run.data.metrics
    task = tasks.TASKS.get(tags.get("task", ""))
    if task is None or "estimate" not in task.predicted:
        what = f"of task {tags['task']}" if "task" in tags else f"of phase {tags.get('phase', 'unknown')}"
        raise UserError(f"run {run_id}: is one {what}, which estimates no sound; name a confirmed one of a denoiser")
    path, content = tracker.artifact(run_id, WEIGHTS), tracker.read_json(run_id, "spec.json")
    if path is None or content is None:
        raise UserError(
            f"run {run_id}: has kept no weights (phase {tags['phase']}, {tags.get('state', 'a group of runs')}"
            f"{', imported' if MADE in tags else ''}); name a finished run of phase confirm made in this store"
        )
    info = models.get(tags["model"])
    conditions = losses.parse(tags["loss"]).conditions
    model = models.build(info.name, {name: value for name, value in conditions.items() if name in info.settings})
    try:
        model.load_state_dict(_weights(path, run_id))
    except (
        RuntimeError,
        TypeError,
        AttributeError,
    ) as error:  # of tensors of other names or shapes, and of what is none
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"run {run_id}: its weights do not fit {info.name} as it is now ({reason})") from None
    about = f"{tags['loss']}, {info.name}, seed {tags['seed']}, run {run_id}"
    low, high = content["study"]["scenes"]["level"]
    free = metrics.get("matched/si_sdr", 0.0) - metrics.get("matched/snr", 0.0) > FREE_LEVEL
    return Denoiser(model.to(device).eval(), about, (low, high), free)


def _weights(path: Path, run_id: str) -> Any:
    """What a file of weights holds; of a file that would run something when it is read, nothing is run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # of a damaged file torch, zip and pickle each say something else; torch, to trust it
        raise UserError(
            f"run {run_id}: its {WEIGHTS} is damaged, or holds more than weights; name another run"
        ) from None


def _run(tracker: Tracker, run_id: str) -> Run:
    found = tracker.search(f"attributes.run_id = '{run_id}'") if run_id.isalnum() else []
    if not found:
        raise UserError(f"run {run_id!r}: not in {tracker.shown}; MLflow's UI shows ids, or give --loss in its place")
    return found[0]


def enhance(denoiser: Denoiser, recording: Recording) -> Recording:
    """What a denoiser makes of a recording, at its rate, channel by channel; above 8 kHz there is nothing.

    A model of two channels makes one of them, that of the first. The level is brought into the range that was trained on, where it
    lies outside, and back afterwards. Where the loss has left the level open, it is the one with which the estimate explains most
    of the recording (least squares).
    """
    heard = resampled(recording.samples, recording.rate, SAMPLE_RATE)
    together = "channels" in models.inputs(denoiser.model)
    if together and len(heard) != 2:
        raise UserError(
            f"model of {denoiser.about}: hears two channels at once; the recording has {len(heard)}. Name a run of another model"
        )
    level = max(active_level(channel * 32768) for channel in heard)
    gain = 10 ** ((float(np.clip(level, *denoiser.level)) - level) / 20)
    made = np.stack([_whole(denoiser.model, gain * part) for part in (heard[None] if together else heard)]) / gain
    if denoiser.free:
        made *= np.vdot(made, heard[: len(made)]) / max(float(np.vdot(made, made)), 1e-12)
    length = recording.samples.shape[1]
    back = resampled(made, SAMPLE_RATE, recording.rate)[:, :length]
    return replace(recording, samples=np.pad(back, ((0, 0), (0, length - back.shape[1]))))


def _whole(model: torch.nn.Module, noisy: np.ndarray) -> np.ndarray:
    """The estimate of one channel, (samples,), or of both, (2, samples), in parts where it is long."""
    window, fade, samples = WINDOW * SAMPLE_RATE, FADE * SAMPLE_RATE, noisy.shape[-1]
    if samples <= window:
        return _part(model, noisy)
    rising, made = np.linspace(0, 1, fade, dtype=np.float32), np.zeros(samples, np.float32)
    starts = range(0, samples - fade, window - fade)
    for start in starts:
        part = _part(model, noisy[..., start : start + window])
        if start:
            part[:fade] *= rising
        if start != starts[-1]:
            part[-fade:] *= 1 - rising
        made[start : start + window] += part
    return made


@torch.inference_mode()
def _part(model: torch.nn.Module, noisy: np.ndarray) -> np.ndarray:
    device: Any = next(model.parameters()).device
    return model(torch.from_numpy(noisy)[None].to(device))["estimate"][0].float().cpu().numpy()
