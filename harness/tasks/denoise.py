"""Task `denoise`: noisy speech in, clean speech out, judged by PESQ, STOI, ESTOI, SI-SDR, SNR and DNSMOS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from harness import metrics, signal

Clip = np.ndarray


class Denoise:
    """See design: what is given, what is predicted, what is judged."""

    name = "denoise"
    given = ("noisy", "clean")
    predicted = ("estimate",)
    reference = "mse"
    controls = ("unprocessed", "oracle_mask", "oracle_psm")
    judged = tuple(metrics.METRICS)  # on test
    watched = ("pesq_wb", "stoi", "estoi", "si_sdr")  # on validation
    # Selection: each metric as the share of the way from the unprocessed mixture to this oracle (its ceiling for a mask).
    quality = (("pesq_wb", "oracle_mask"), ("estoi", "oracle_mask"), ("si_sdr", "oracle_psm"))
    objectives = ("quality", *watched)

    def estimate(self, model: nn.Module, noisy: Sequence[torch.Tensor], device: torch.device) -> list[Clip]:
        """Estimates of clips of any length, (samples,) each; one at a time, so that padding plays no part."""
        model.eval()
        with torch.inference_mode():
            clips = [model(clip[None].to(device))["estimate"][0].float().cpu().numpy() for clip in noisy]
        model.train()
        return clips

    def control(self, name: str, noisy: torch.Tensor, clean: torch.Tensor, mask_max: float) -> Clip:
        """What a control makes of a clip: itself, or an ideal mask in [0, mask_max] on the noisy phase.

        `oracle_mask`: |S| / |X|, the ceiling of PESQ and STOI. `oracle_psm`: Re(S / X), the phase-sensitive mask (Erdogan
        et al. 2015), the ceiling of SI-SDR.
        """
        if name == "unprocessed":
            return noisy.numpy()
        mixture, speech = (signal.stft(signal.pad_to_hop(clip[None])) for clip in (noisy, clean))
        ratio = speech * mixture.conj() / signal.power(mixture)
        mask = (ratio.abs() if name == "oracle_mask" else ratio.real).clamp(0, mask_max)
        return signal.istft(mixture * mask, noisy.shape[-1])[0].numpy()

    def selection(
        self, objective: str, means: Mapping[str, float], controls: Mapping[str, Mapping[str, float]]
    ) -> float:
        """The score that tuning maximises, from validation means. controls: the validation means of each control."""
        if objective != "quality":
            return float(means[objective])
        parts = []
        for name, oracle in self.quality:
            low, high = controls["unprocessed"][name], controls[oracle][name]
            parts.append(np.clip((means[name] - low) / (high - low), -1, 1) if high > low else 0.0)
        return float(np.mean(parts))
