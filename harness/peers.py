"""Other implementations of the same losses, side by side with ours: values and times, taken in turn in one run.

The packages are an optional extra (`pip install -e .[peers]`); what is not installed is left out with a line that says so.
asteroid is not in the extra, for it asks for an older torchmetrics than ours: `pip install --no-deps asteroid`, with what it
then misses, brings its PMSQE in.
"""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness import losses

ROUNDS = 15
SECONDS = 3

Function = Callable[[Tensor, Tensor], Tensor]  # (estimate, clean) to one value, or one value per item


@dataclass(frozen=True)
class Peer:
    """make: imports the package and returns its loss, lower is better. settings: those of ours that it corresponds to."""

    loss: str
    package: str
    make: Callable[[], Function]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One implementation of one loss. value: mean over the batch; ms: forward and backward, median; ratio: to ours."""

    loss: str
    implementation: str
    value: float
    ms: float
    ratio: float


def compare(
    estimate: Tensor, clean: Tensor, peers: list[Peer] | None = None, say: Callable[[str], None] = print
) -> list[Row]:
    """Every peer beside our loss under the same settings. estimate, clean: (items, samples) at 16 kHz."""
    rows = []
    contenders: dict[tuple[str, str], dict[str, Function]] = {}
    for peer in PEERS if peers is None else peers:
        if peer.loss not in losses.all_losses():
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of old packages about their own dependencies
                function = peer.make()
                function(estimate, clean)
        except ImportError as error:
            say(f"{peer.loss}: {peer.package} is left out: {error}")
            continue
        except Exception as error:  # somebody else's code on versions it has not seen
            say(f"{peer.loss}: {peer.package} fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
            continue
        ours = contenders.setdefault((peer.loss, repr(peer.settings)), {"ours": _ours(peer)})
        ours[peer.package] = function
    for (loss, _), functions in contenders.items():
        values = {name: function(estimate, clean).mean().item() for name, function in functions.items()}
        times = _in_turn(functions, estimate, clean)
        rows += [
            Row(loss, name, values[name], times[name], times[name] / times["ours"])
            for name in sorted(times, key=_first)
        ]
    return rows


def _first(name: str) -> tuple[bool, str]:
    return name != "ours", name


def _ours(peer: Peer) -> Function:
    function = losses.get(peer.loss).function  # called as anybody would: its guards may be switched off
    return lambda estimate, clean: function(estimate, clean, **peer.settings)


def _in_turn(functions: Mapping[str, Function], estimate: Tensor, clean: Tensor) -> dict[str, float]:
    """Median ms of a forward and a backward pass of each; in turn, so that a busy moment of the machine meets all."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for round_number in range(ROUNDS + 2):
        for name, function in functions.items():
            leaf = estimate.detach().clone().requires_grad_()
            _synchronise(leaf)
            start = time.perf_counter()
            function(leaf, clean).sum().backward()
            _synchronise(leaf)
            if round_number >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(taken) for name, taken in times.items()}


def _synchronise(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


def _torch_stoi(extended: bool) -> Function:
    from torch_stoi import NegSTOILoss

    loss = NegSTOILoss(16000, extended=extended)
    return lambda estimate, clean: 1 + loss.to(estimate.device)(estimate, clean)


def _ci_sdr() -> Function:
    from ci_sdr.pt import ci_sdr_loss

    return lambda estimate, clean: ci_sdr_loss(estimate[:, None], clean[:, None], compute_permutation=False)[:, 0]


def _asteroid_pmsqe() -> Function:
    from asteroid.losses import SingleSrcPMSQE

    loss = SingleSrcPMSQE()

    def power(signal: Tensor) -> Tensor:
        window = torch.hann_window(512, device=signal.device).sqrt()
        spectrum = torch.stft(signal, 512, 256, window=window, center=False, return_complex=True)
        return (spectrum.real.square() + spectrum.imag.square()).mT

    return lambda estimate, clean: loss.to(estimate.device)(power(estimate), power(clean))


def _asteroid_sdr(kind: str) -> Function:
    from asteroid.losses.sdr import SingleSrcNegSDR

    return SingleSrcNegSDR(kind, zero_mean=kind != "snr")


def _auraloss(name: str, **settings: Any) -> Function:
    import auraloss

    loss = getattr(auraloss, name.split(".")[0])
    loss = getattr(loss, name.split(".")[1])(**settings)
    return lambda estimate, clean: loss(estimate[:, None], clean[:, None])


def _torchmetrics(name: str, **settings: Any) -> Function:
    from torchmetrics.functional import audio

    measure = getattr(audio, name)
    return lambda estimate, clean: -measure(estimate, clean, **settings)


def _plain(name: str) -> Function:
    measure = getattr(torch.nn.functional, name)
    return lambda estimate, clean: measure(estimate, clean)


BARE = {"max_db": math.inf, "eps": 0.0}
MEANLESS = {**BARE, "zero_mean": True}
SI_SDR = "scale_invariant_signal_distortion_ratio"
ALL_RESOLUTIONS = "freq.MultiResolutionSTFTLoss"

PEERS = [
    Peer("stoi", "torch_stoi", lambda: _torch_stoi(False), {}),
    Peer("estoi", "torch_stoi", lambda: _torch_stoi(True), {}),
    Peer("ci_sdr", "ci_sdr", _ci_sdr, {**BARE, "load": 0.0}),
    Peer("pmsqe", "asteroid", _asteroid_pmsqe, {}),
    Peer("multi_res_stft", "auraloss", lambda: _auraloss(ALL_RESOLUTIONS), {}),
    Peer("snr", "torchmetrics", lambda: _torchmetrics("signal_noise_ratio"), BARE),
    Peer("snr", "asteroid", lambda: _asteroid_sdr("snr"), BARE),
    Peer("snr", "auraloss", lambda: _auraloss("time.SNRLoss", zero_mean=False, reduction="none"), BARE),
    Peer("si_sdr", "torchmetrics", lambda: _torchmetrics(SI_SDR, zero_mean=True), MEANLESS),
    Peer("si_sdr", "asteroid", lambda: _asteroid_sdr("sisdr"), MEANLESS),
    Peer("si_sdr", "auraloss", lambda: _auraloss("time.SISDRLoss", reduction="none"), MEANLESS),
    Peer("sd_sdr", "asteroid", lambda: _asteroid_sdr("sdsdr"), MEANLESS),
    Peer("sd_sdr", "auraloss", lambda: _auraloss("time.SDSDRLoss", reduction="none"), MEANLESS),
    Peer("mse", "torch", lambda: _plain("mse_loss"), {}),
    Peer("l1", "torch", lambda: _plain("l1_loss"), {}),
]
