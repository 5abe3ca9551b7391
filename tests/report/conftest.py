"""Synthetic results with known truths: a score is the gain of the loss + effects of prompt, seed and item."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.report.runs import Results

BASE = {"pesq_wb": 1.9, "estoi": 0.7, "si_sdr": 8.0, "dnsmos_ovrl": 2.4}
SCALE = {"pesq_wb": 0.3, "estoi": 0.06, "si_sdr": 2.0, "dnsmos_ovrl": 0.2}  # one step of a loss's gain
RUN = {"task": "denoise", "corpus": "prompts", "model": "gru_small", "weighting": "", "reason": "", "stale": False}
RUN |= {"device": "cpu (16 cores)", "commit": "abc1234", "updates": 800, "studies_read": 1, "preliminary": False}
RUN |= {"losses_read": 3, "variant": "", "parent": "", "experiment": "7", "command": "make study STUDY=quick LOSS=x"}
RUN |= {
    "void": np.nan,
    "raced": None,
    "study": "make study STUDY=quick",
    "made": "2026-11-24T21:05:00",
    "asked": "quick",
}


def synthetic(
    gains: dict[str, float],
    *,
    seeds: int = 5,
    items: int = 60,
    reference: str = "mse",
    protocol: str = "p1",
    targets: dict[str, tuple[str, ...]] | None = None,
    diverged: tuple[tuple[str, int], ...] = (),
    stale: tuple[str, ...] = (),
    shift: dict[tuple[str, str], float] | None = None,
    noise: float = 0.1,
    audio: Path | None = None,
) -> Results:
    """gains: loss -> true gain over unprocessed, in SCALE steps (the same on every metric, but for `shift` of one).

    noise: standard deviation of a seed x item score, in steps; seeds vary by a tenth of a step, prompts by one.
    """
    rng = np.random.default_rng(7)
    targets, shift = targets or {}, shift or {}
    controls = {"unprocessed": 0.0, "oracle_mask": 4.0, "oracle_psm": 4.2}
    item_names = [f"{kind}-{i:03d}" for kind in ("matched", "mismatched") for i in range(items)]
    sets = [name.split("-")[0] for name in item_names]
    prompts = np.arange(2 * items) // 3
    prompt_effect = rng.standard_normal((prompts.max() + 1, len(BASE)))
    runs, scores, curves = [], [], []
    for name, gain in {**controls, **gains}.items():
        control = name in controls
        for seed in [pd.NA] if control else range(seeds):
            run_id = f"{protocol}-{name}-{seed}" if not control else f"{protocol}-{name}"
            state = "diverged" if (name, seed) in diverged else "finished"
            role = "control" if control else "reference" if name == reference else "loss"
            runs.append(
                RUN
                | {"run_id": run_id, "protocol": protocol, "loss": name, "role": role, "seed": seed, "state": state}
                | {"tuning": "" if control else "shipped" if role == "reference" else "tuned", "lr": 1e-3}
                | {"params": np.nan if control else 41_000.0, "targets": targets.get(name, ()), "stale": name in stale}
            )
            if state == "diverged":
                continue
            seed_effect = 0.0 if control else 0.1 * rng.standard_normal()
            own = 0.0 if name == "unprocessed" else noise
            table = pd.DataFrame({"run_id": run_id, "test_set": sets, "item": item_names})
            table["cluster"] = [f"prompt {p}" for p in prompts]
            table["input_snr"] = np.resize([0.0, 5.0, 10.0], 2 * items)
            table["noise"] = np.resize(["babble", "street"], 2 * items)
            table["speaker"] = np.resize(["anna", "bert", "carl", "dora"], 2 * items)
            table["floored"] = table["unasked"] = ""
            for m, (metric, base) in enumerate(BASE.items()):
                steps = gain + shift.get((name, metric), 0.0) + seed_effect + own * rng.standard_normal(2 * items)
                table[metric] = base + SCALE[metric] * (steps + prompt_effect[prompts, m])
                for step in () if control else np.arange(0, 801, 100):
                    value = base + SCALE[metric] * gain * (1 - np.exp(-step / 200)) + 0.02 * rng.standard_normal()
                    curves.append((run_id, metric, step, step / 10, value))
            scores.append(table)
    return Results(
        runs=pd.DataFrame(runs).astype({"seed": "Int64"}),
        scores=pd.concat(scores, ignore_index=True),
        curves=pd.DataFrame(curves, columns=["run_id", "metric", "step", "seconds", "value"]),
        tuning=_tuning(gains, protocol),
        throughput=_throughput(gains),
        audio=_audio(runs, audio) if audio else pd.DataFrame(columns=["run_id", "item", "kind", "path"]),
        notes={protocol: ["Speech: Example Corpus, CC BY 4.0."]},
    )


def _tuning(gains: dict[str, float], protocol: str) -> pd.DataFrame:
    rows = []
    for k, (loss, gain) in enumerate(gains.items()):
        rates = np.geomspace(1e-4, 1e-2, 5)
        scores = 0.1 + 0.1 * gain - 0.05 * (np.log10(rates) + 3 - 0.3 * (k % 5 - 2)) ** 2
        scores[-1] = np.nan if k % 3 == 0 else scores[-1]
        best = int(np.nanargmax(scores))
        for i, (lr, score) in enumerate(zip(rates, scores, strict=True)):
            row = {"protocol": protocol, "loss": loss, "lr": lr, "score": score, "chosen": i == best}
            row |= {"state": "finished" if np.isfinite(score) else "diverged", "edge": i == best and best in (0, 4)}
            rows.append(row | {metric: BASE[metric] + SCALE[metric] * score * 5 for metric in BASE})
    return pd.DataFrame(rows)


def _throughput(gains: dict[str, float]) -> pd.DataFrame:
    rows = []
    for k, loss in enumerate(gains):
        ms = 0.4 * 1.25 ** (k % 12)
        row = {"loss": loss, "device": "cpu", "threads": 2, "dtype": "float32", "loss_ms": ms, "loss_ms_iqr": 0.1 * ms}
        row |= {
            "ratio_to_mse": ms / 0.4,
            "step_ms": 20 + ms,
            "step_ratio": (20 + ms) / 20.4,
            "updates_per_s": 1000 / (20 + ms),
        }
        rows.append(row | {"audio_s_per_s": 32_000 / (20 + ms), "peak_mib": 300.0 + k, "made": "2026-11-25T08:00:00"})
    return pd.DataFrame(rows)


def _audio(runs: list[dict], folder: Path) -> pd.DataFrame:
    import soundfile

    rng = np.random.default_rng(0)
    t = np.arange(16_000) / 16_000
    clean = 0.3 * np.sin(2 * np.pi * 220 * t) * (np.sin(2 * np.pi * 3 * t) > 0)
    rows = []
    for run in runs:
        if run["role"] == "control" or run["state"] == "diverged":
            continue
        kept = {"matched-000": False, "matched-001": False, "mismatched-000": False}
        kept |= {"matched-005": True} if run["seed"] == 0 else {}
        for item, worst in kept.items():
            for kind, level in (("noisy", 0.1), ("clean", 0.0), ("estimate", 0.03)):
                path = folder / f"{len(rows)}.wav"
                soundfile.write(path, clean + level * rng.standard_normal(len(t)), 16_000)
                rows.append({"run_id": run["run_id"], "item": item, "kind": kind, "path": str(path), "worst": worst})
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def make_results() -> Callable[..., Results]:
    """The maker of synthetic results (see `synthetic`)."""
    return synthetic
