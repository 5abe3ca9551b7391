"""Quality metrics: what they are called, their floors, and how those of a denoised clip are computed in parallel.

PESQ is P.862.2 (wide band) and P.862 (narrow band) by `pesq`; STOI and ESTOI by `pystoi`; SI-SDR (means removed) and SNR by
`torchmetrics`; DNSMOS P.835 by the ONNX model that the `speechmos` wheel carries.

A value is *missing* (NaN) only where the reference causes it: a silent or too short clean clip. An estimate that makes a
metric fail, or hang, gets the metric's floor and is named in `floored`, so that neither silence nor divergence is rewarded.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from typing import Any

import numpy as np
from pebble import ProcessExpired, ProcessFuture, ProcessPool

from harness.process import limit_threads

RATE = 16_000
LIMIT = 120.0  # seconds for the metrics of one clip, which take less than one
Score = tuple[dict[str, float], list[str]]  # metrics, and the names of those that fell to their floor
DNSMOS_SAMPLES = 144_160  # 9.01 s, the length that the DNSMOS model was trained on
QUIETEST = 2.0**-16  # peak below which a clip of 16 bits is silence
DNSMOS_FIT = {  # published polynomials from the model's three outputs to the P.835 scale, highest power first
    "dnsmos_sig": (-0.08397278, 1.22083953, 0.0052439),
    "dnsmos_bak": (-0.13166888, 1.60915514, -0.39604546),
    "dnsmos_ovrl": (-0.06766283, 1.11546468, 0.04602535),
}


@dataclass(frozen=True)
class Metric:
    """One quality metric, higher is better. `floor`: the value of an estimate that makes the metric fail."""

    label: str
    unit: str
    floor: float


_CLIPS = {
    "pesq_wb": Metric("PESQ-WB", "MOS-LQO", 1.0),
    "pesq_nb": Metric("PESQ-NB", "MOS-LQO", 1.0),
    "stoi": Metric("STOI", "", 0.0),
    "estoi": Metric("ESTOI", "", 0.0),
    "si_sdr": Metric("SI-SDR", "dB", -30.0),
    "snr": Metric("SNR", "dB", -30.0),
    "dnsmos_ovrl": Metric("DNSMOS OVRL", "MOS", 1.0),
    "dnsmos_sig": Metric("DNSMOS SIG", "MOS", 1.0),
    "dnsmos_bak": Metric("DNSMOS BAK", "MOS", 1.0),
}
ANSWERS = {  # of what a task recognises: it measures them itself
    "accuracy": Metric("accuracy", "", 0.0),
    "centroid_accuracy": Metric("centroid accuracy", "", 0.0),
    "average_precision": Metric("average precision", "", 0.0),
    "token_accuracy": Metric("token accuracy", "", 0.0),
    "count_accuracy": Metric("count accuracy", "", 0.0),
    "iou": Metric("IoU", "", 0.0),
}
IMPROVEMENT = "si_sdr_improvement"  # over the mixture, of talkers that were separated
ATTENUATION = "attenuation"  # of noise alone: all that an item without speech can be judged by
MOST_DB = 100.0  # attenuation of an estimate that is silent
METRICS = (
    {IMPROVEMENT: Metric("SI-SDR improvement", "dB", -30.0)}
    | _CLIPS
    | {ATTENUATION: Metric("attenuation", "dB", -30.0)}
    | ANSWERS
)
RATIOS = ("si_sdr", "snr")  # without a bound: of speech that came without noise, nothing is the better for it
OF_CLIPS = tuple(_CLIPS)  # what `score` measures


def _pesq(estimate: np.ndarray, clean: np.ndarray, mode: str) -> float:
    from pesq import PesqError, pesq

    try:
        return float(pesq(RATE, clean, estimate, mode))
    except (PesqError, ValueError):
        return np.nan


def _stoi(estimate: np.ndarray, clean: np.ndarray, extended: bool) -> float:
    from pystoi import stoi

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # pystoi warns, and returns 1e-5, where too few frames are left
        try:
            return float(stoi(clean, estimate, RATE, extended=extended))
        except (RuntimeWarning, ValueError):
            return np.nan


def _ratio(estimate: np.ndarray, clean: np.ndarray, name: str) -> float:
    import torch
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio, signal_noise_ratio

    pair = torch.tensor(np.stack([estimate, clean]), dtype=torch.float64)
    if name == "snr":
        return float(signal_noise_ratio(pair[0], pair[1]))
    # torchmetrics adds an epsilon to powers, so that a silent, constant or very faint estimate would score 0 dB.
    centred = pair[0] - pair[0].mean()
    peak = centred.abs().max()
    if peak <= 1e-6 * pair[0].abs().max():
        return np.nan
    return float(scale_invariant_signal_distortion_ratio(centred / peak, pair[1], zero_mean=True))


@lru_cache(maxsize=1)
def _dnsmos_session() -> Any:
    import importlib.util
    from pathlib import Path

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    package = importlib.util.find_spec("speechmos")  # found, not imported: it would import librosa
    assert package is not None
    assert package.origin is not None
    model = Path(package.origin).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _dnsmos(estimate: np.ndarray) -> dict[str, float]:
    """DNSMOS P.835 (Reddy et al. 2022): a short clip is repeated to 9.01 s, a long one averaged over windows 1 s apart."""
    if np.abs(estimate).max(initial=0) < QUIETEST:
        return {}  # the model finds the background of silence excellent (BAK 3.5)
    audio = np.resize(np.clip(estimate, -1, 1), max(len(estimate), DNSMOS_SAMPLES)).astype(np.float32)
    starts = range(0, max(len(audio) // RATE * RATE - DNSMOS_SAMPLES, 0) + 1, RATE)
    windows = [audio[start : start + DNSMOS_SAMPLES] for start in starts]
    raw = np.stack([_dnsmos_session().run(None, {"input_1": window[None]})[0][0] for window in windows])
    return {name: float(np.polyval(fit, raw[:, place]).mean()) for place, (name, fit) in enumerate(DNSMOS_FIT.items())}


def _measure(estimate: np.ndarray, clean: np.ndarray, names: Collection[str]) -> dict[str, float]:
    values = _dnsmos(estimate) if any(name.startswith("dnsmos") for name in names) else {}
    for name in names:
        if name.startswith("pesq"):
            values[name] = _pesq(estimate, clean, name.removeprefix("pesq_"))
        elif name in ("stoi", "estoi"):
            values[name] = _stoi(estimate, clean, name == "estoi")
        elif name in ("si_sdr", "snr"):
            values[name] = _ratio(estimate, clean, name)
    return {name: values.get(name, np.nan) for name in names}


def score(estimate: np.ndarray, clean: np.ndarray, names: Collection[str]) -> Score:
    """Metrics of one clip, and the names of those that fell to their floor.

    estimate, clean: (samples,) float at 16 kHz; other lengths or non-finite samples of the estimate make every metric fail.
    """
    clean = np.asarray(clean, np.float32)
    estimate = np.asarray(estimate, np.float32)
    usable = estimate.shape == clean.shape and bool(np.isfinite(estimate).all())
    silent = not clean.any()
    values = dict.fromkeys(names, np.nan)
    if usable and not silent:
        values = _measure(estimate, clean, names)
    floored = []
    for name in names:
        floor = METRICS[name].floor
        if silent or (not np.isfinite(values[name]) and not np.isfinite(_measure(clean, clean, [name])[name])):
            values[name] = np.nan  # the reference's fault, the same for every loss
        elif not np.isfinite(values[name]) or values[name] < floor:
            values[name] = floor
            floored.append(name)
    return values, floored


def attenuation(estimate: np.ndarray, noisy: np.ndarray) -> float:
    """By how many dB an estimate is quieter than the noise that it was made of, -30 to 100; -30 too where it is not finite.

    estimate, noisy: (samples,). NaN where the noise itself is silent.
    """
    made, given = (float(np.square(np.asarray(signal, np.float64)).sum()) for signal in (estimate, noisy))
    if given == 0:
        return np.nan
    floor = METRICS[ATTENUATION].floor
    ratio = made / given
    return float(np.clip(-10 * np.log10(max(ratio, 10 ** (-MOST_DB / 10))), floor, MOST_DB)) if ratio >= 0 else floor


class ScoringError(Exception):
    """A metric raised, or its process died. `place`: the clip's in the list that was to be scored."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(place, reason)
        self.place, self.reason = place, reason


Job = tuple[int, np.ndarray, np.ndarray, tuple[str, ...]]  # place, estimate, clean, names


def _score(job: Job) -> Score:
    try:
        return score(*job[1:])
    except Exception as error:
        raise ScoringError(job[0], f"{type(error).__name__}: {error}") from error


def _prepare() -> None:
    """What a scoring process does before the time of its first clip begins."""
    limit_threads(1)
    import pystoi  # noqa: F401


class Scorer:
    """Scores lists of clips in `processes` processes of one thread each, because a metric that hangs can only be killed. Close
    it, or use it in a `with`.

    limit: seconds that a clip may take. A metric that takes longer falls to its floor, as one that fails does, or is missing
    where the clean clip alone takes as long. overdue: of the last call, the places of such clips and those metrics.
    """

    def __init__(self, processes: int, limit: float = LIMIT) -> None:
        self.processes, self.limit = max(processes, 1), limit
        self.overdue: dict[int, list[str]] = {}
        self._pool: ProcessPool | None = None

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()

    def __call__(
        self, estimates: Sequence[np.ndarray], cleans: Sequence[np.ndarray], names: Sequence[Collection[str]]
    ) -> list[Score]:
        """Per clip: the metrics and which of them were floored. names: for each clip, some of `OF_CLIPS`.

        Raises ScoringError where a metric raises, or takes its process down with it.
        """
        self.overdue = {}
        each = enumerate(zip(estimates, cleans, names, strict=True))
        jobs = [(place, np.asarray(e), np.asarray(c), tuple(n)) for place, (e, c, n) in each]
        # Ratios are a few sums, and would have every process import torch.
        far = [(*job[:3], tuple(name for name in job[3] if name not in RATIOS)) for job in jobs]
        begun = [self._begin(job) if job[3] else None for job in far]
        near = [_score((*job[:3], tuple(name for name in job[3] if name in RATIOS))) for job in jobs]
        scores = []
        for job, part, future, (values, floored) in zip(jobs, far, begun, near, strict=True):
            more = self._result(part, future) if future is not None else ({}, [])
            values, floored = values | more[0], floored + more[1]
            scores.append(({name: values[name] for name in job[3]}, [name for name in job[3] if name in floored]))
        return scores

    def _begin(self, job: Job) -> ProcessFuture:
        if self._pool is None:
            # Spawned, because a fork of a process with CUDA or threads is unsafe; the children never import the trainer.
            self._pool = ProcessPool(self.processes, context=get_context("spawn"), initializer=_prepare)
        return self._pool.schedule(_score, args=(job,), timeout=self.limit)

    def _result(self, job: Job, future: ProcessFuture) -> Score:
        try:
            return future.result()
        except TimeoutError:
            if len(job[3]) > 1:
                return self._one_by_one(job)
            return self._overdue(job, job[3][0])
        except ProcessExpired as error:
            raise ScoringError(job[0], "a scoring process died at this clip") from error

    def _one_by_one(self, job: Job) -> Score:
        """Each metric in a time of its own."""
        scores = [self._result(alone, self._begin(alone)) for alone in [(*job[:3], (name,)) for name in job[3]]]
        return {n: v for values, _ in scores for n, v in values.items()}, [n for _, floored in scores for n in floored]

    def _overdue(self, job: Job, name: str) -> Score:
        place, _, clean, _ = job
        self.overdue.setdefault(place, []).append(name)
        try:
            self._begin((place, clean, clean, (name,))).result()
        except TimeoutError:
            return {name: np.nan}, []
        return {name: METRICS[name].floor}, [name]
