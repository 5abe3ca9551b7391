"""Ideal masks on the phase of the mixture: the ceilings of what a mask can reach."""

from __future__ import annotations

import torch

from harness import signal


def ideal(name: str, noisy: torch.Tensor, clean: torch.Tensor, mask_max: float) -> torch.Tensor:
    """A mixture under an ideal mask in [0, mask_max]. noisy, clean: (samples,), as what is returned.

    `oracle_mask`: |S| / |X|, the ceiling of PESQ and STOI. `oracle_psm`: Re(S / X), the phase-sensitive mask (Erdogan et al. 2015),
    the ceiling of SI-SDR.
    """
    mixture, speech = (signal.stft(signal.pad_to_hop(clip[None])) for clip in (noisy, clean))
    ratio = speech * mixture.conj() / signal.power(mixture)
    mask = (ratio.abs() if name == "oracle_mask" else ratio.real).clamp(0, mask_max)
    return signal.istft(mixture * mask, noisy.shape[-1])[0]
