"""The signal-to-distortion family: ratios of energies of waveforms, in dB, and their bounded cousin wSDR.

They take (batch, samples), or (batch, sources, samples), with optional lengths (batch,) in samples, and return (batch,).
`energy` has the guards that keep them finite.
"""

from __future__ import annotations

from torch import Tensor

from harness.losses.energy import Eps, MaxDb, energy, error_energy, masked_pair, projection, ratio_db, valid_samples
from harness.losses.registry import loss
from harness.signal import mask_samples


@loss(
    minimum=lambda max_db, **_: -max_db,
    unit="dB",
    targets=("snr",),
    reference="Le Roux et al. 2019, SDR: half-baked or well done?, arXiv 1811.02508",
    aliases=("sdr",),
)
def snr(
    estimate: Tensor,
    clean: Tensor,
    lengths: Tensor | None = None,
    *,
    zero_mean: bool = False,
    max_db: MaxDb = 30.0,
    eps: Eps = 1e-10,
) -> Tensor:
    """Signal-to-noise ratio, negated: -10 log10(|s|² / |e - s|²).

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,) dB, at least -max_db. A silent target
    costs about +80 dB of value at an ordinary gradient. zero_mean removes both means first.
    """
    estimate, clean, samples = masked_pair(estimate, clean, lengths, zero_mean)
    return ratio_db(energy(clean), error_energy(estimate, clean), eps * samples, max_db)


@loss(
    minimum=lambda max_db, **_: -max_db,
    unit="dB",
    targets=(
        "si_sdr",
        "si_sdr_improvement",
    ),
    reference="Le Roux et al. 2019, SDR: half-baked or well done?, arXiv 1811.02508",
)
def si_sdr(
    estimate: Tensor,
    clean: Tensor,
    lengths: Tensor | None = None,
    *,
    zero_mean: bool = True,
    max_db: MaxDb = 30.0,
    eps: Eps = 1e-10,
) -> Tensor:
    """Scale-invariant SDR, negated: -10 log10(|a s|² / |e - a s|²) with a = <e, s> / |s|².

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,) dB, at least -max_db. zero_mean
    removes both means first; the paper's definition does not, and a constant offset then counts as noise.
    """
    estimate, clean, samples = masked_pair(estimate, clean, lengths, zero_mean)
    scale, target = projection(estimate, clean, eps * samples)
    # The residual itself, not 1 - cos², which in float32 is 2 mdB off at 20 dB and saturates at 46 dB.
    return ratio_db(target, error_energy(estimate, scale[:, None] * clean), eps * samples, max_db)


# Never above SI-SDR, and SNR but for the gain: it optimises both.
@loss(
    minimum=lambda max_db, **_: -max_db,
    unit="dB",
    targets=("si_sdr", "si_sdr_improvement", "snr"),
    reference="Le Roux et al. 2019, SDR: half-baked or well done?, arXiv 1811.02508",
)
def sd_sdr(
    estimate: Tensor,
    clean: Tensor,
    lengths: Tensor | None = None,
    *,
    zero_mean: bool = True,
    max_db: MaxDb = 30.0,
    eps: Eps = 1e-10,
) -> Tensor:
    """Scale-dependent SDR, negated: -10 log10(|a s|² / |e - s|²) with a = <e, s> / |s|².

    estimate, clean: (batch, samples); lengths: (batch,) samples. Returns (batch,) dB, at least -max_db. As a quality it
    is SNR + 20 log10 a, so that an estimate which is too quiet costs twice. zero_mean as in `si_sdr`.
    """
    estimate, clean, samples = masked_pair(estimate, clean, lengths, zero_mean)
    _, target = projection(estimate, clean, eps * samples)
    return ratio_db(target, error_energy(estimate, clean), eps * samples, max_db)


# For {speech, noise} whose estimates add up to the mixture this is SNR plus a constant, hence its target metric.
@loss(
    minimum=lambda max_db, **_: -max_db,
    unit="dB",
    targets=("snr",),
    reference="von Neumann et al. 2022, SA-SDR, arXiv 2110.15581",
)
def sa_sdr(
    estimates: Tensor, sources: Tensor, lengths: Tensor | None = None, *, max_db: MaxDb = 30.0, eps: Eps = 1e-10
) -> Tensor:
    """Source-aggregated SDR, negated: energies are summed over the sources of a mixture before the ratio.

    estimates, sources: (batch, sources, samples); lengths: (batch,) samples. Returns (batch,) dB, at least -max_db. Not
    scale-invariant, and never summed over the batch. One silent source among several is harmless. A model with one
    output is given the rest of the mixture as its noise estimate; `gru_mask_pair` and its like have a free one.
    """
    samples = valid_samples(estimates, lengths)
    sources = mask_samples(sources, lengths)
    error = error_energy(mask_samples(estimates, lengths), sources)
    return ratio_db(energy(sources).sum(-1), error.sum(-1), eps * samples, max_db)


# The cosine of an estimate is a function of its SI-SDR alone, hence the target metric.
@loss(
    minimum=-1.0,
    unit="cosine",
    targets=("si_sdr", "si_sdr_improvement"),
    reference="Choi et al. 2019, Phase-aware speech enhancement with deep complex U-Net, arXiv 1903.03107",
)
def wsdr(estimate: Tensor, clean: Tensor, noisy: Tensor, lengths: Tensor | None = None, *, eps: Eps = 1e-10) -> Tensor:
    """Weighted SDR, -(A cos(s, e) + (1 - A) cos(z, x - e)): z = x - s is the noise, A the speech's share of energy.

    estimate, clean, noisy: (batch, samples); lengths: (batch,) samples. Returns (batch,), from -1 to 1; the noise term
    fixes the scale. On a silent target every estimate c * noisy with c < 1 already scores -1: do not expect it to
    teach a pure gain to mute noise.
    """
    floor = eps * valid_samples(estimate, lengths)
    estimate, clean, noisy = (mask_samples(signal, lengths) for signal in (estimate, clean, noisy))
    noise = noisy - clean
    speech_energy, noise_energy = energy(clean), energy(noise)
    share = speech_energy / (speech_energy + noise_energy + floor)
    speech_cosine = _cosine(estimate, clean, speech_energy, floor)
    return -share * speech_cosine - (1 - share) * _cosine(noisy - estimate, noise, noise_energy, floor)


def _cosine(estimate: Tensor, target: Tensor, target_energy: Tensor, floor: Tensor | float) -> Tensor:
    """Guarded cosine of the angle between signals, (batch,): 0 where one is silent."""
    # The product of roots, not the root of a product, whose exponent float32 may not hold.
    return (estimate * target).sum(-1) / ((energy(estimate) + floor).sqrt() * (target_energy + floor).sqrt())
