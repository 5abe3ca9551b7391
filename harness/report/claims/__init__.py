"""Claims of the literature on losses, each with what would refute it, held against the runs of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.report import words
from harness.report.claims import denoising, others, weights
from harness.report.claims.claim import Claim, Finding, summed, verdict
from harness.report.claims.evidence import Evidence
from harness.report.view import View

if TYPE_CHECKING:
    from harness.report.ranking import Analysis
    from harness.report.runs import Results

__all__ = ["CLAIMS", "Claim", "Finding", "check", "summed"]

PERCEPTUAL, WAVES = "make study STUDY=perceptual", "make study STUDY=waveform_net"

CLAIMS = (
    Claim(
        "C1", "A loss made like ESTOI wins ESTOI (and not STOI)", "ESTOI: estoi − the best other loss",
        "above 0; +0.014 to +0.025 in small nets", "the interval lies below 0", PERCEPTUAL, denoising.estoi_wins,
    ),
    Claim(
        "C2", "The SI-SDR family is on top of SI-SDR: si_sdr, snr, log_mse and wsdr are within 1 dB there and beat pmsqe, estoi "
        "and compressed spectra", "SI-SDR: each of the family − each of the others, and within the family",
        "+1.5 to +4 dB over perceptual losses",
        "a perceptual loss wins SI-SDR", PERCEPTUAL, denoising.family_on_top,
    ),
    Claim(
        "C3", "PMSQE wins PESQ only where phase is given", "PESQ-WB: pmsqe against all others, by architecture",
        "a mask on the noisy phase: top, by 0.07 to 0.13; a waveform net: bottom (Lopez-Espejo et al. 2023)",
        "pmsqe tops PESQ on a waveform net", f"{PERCEPTUAL}; {WAVES}", denoising.pmsqe_by_architecture,
        everywhere=("given the phase", "without the phase"),
    ),
    Claim(
        "C4", "SI-SDR is the all-rounder", "mean rank over PESQ-WB, STOI, ESTOI and SI-SDR among the plain losses "
        "that were compared first", "2 or less (Kolbaek et al. 2020)", "P(rank <= 2) is below 0.8", PERCEPTUAL,
        denoising.all_rounder,
        reason="losses made like STOI and ESTOI win both metrics, in nets and trainings far smaller than those of the paper",
    ),
    Claim(
        "C5", "Losses that are blind to phase break waveform metrics on a waveform net", "SI-SDR: spectral_mag − a waveform loss",
        "−16.8 dB; PESQ +0.47, ESTOI +2.6 points (Wang, Wichern and Le Roux 2021)", "no drop", WAVES, denoising.blind_to_phase,
    ),
    Claim(
        "C6", "A magnitude term beside a waveform loss raises PESQ and costs little SI-SDR", "PESQ-WB and SI-SDR: with the term − "
        "without", "PESQ +0.38 to +0.43, SI-SDR −0.2 to −0.5 dB (the same)", "the interval of PESQ lies below 0", WAVES,
        denoising.magnitude_added,
    ),
    Claim(
        "C7", "More weight on a term like PESQ buys PESQ with SI-SDR (Goodhart)", "trend over four weights or more: of PESQ-WB "
        "above 0, of SI-SDR below", "2.91, 3.56, 3.73 and 19.4, 13.2, 7.7 dB", "neither is monotone", "make study STUDY=goodhart",
        weights.dose, several=True,
    ),
    Claim(
        "C8", "Learned weights are as good as equal ones, and near the best of a grid", "selection score: uncertainty − equal, and "
        "regret", "at least 0; a regret of 0.25 or less", "uncertainty is worse than equal",
        "make study STUDY=weightings; make study STUDY=multitask", weights.learned_weights,
        reason="a learned balance follows the noise of the terms, and not what the metrics ask for",
    ),
    Claim(
        "C9", "The learning rate is part of the loss", "best rates; gaps of the selection score within a loss and between losses",
        "best rates differ, and a bad rate costs more than the next loss (Kolbaek et al. 2020)",
        "one rate is best for all and gaps are below the spread of seeds", "make study STUDY=denoise", weights.rate_matters,
        several=True,
    ),
    Claim(
        "C10", "log_mse is as good as si_sdr, each at its own rate", "SI-SDR: log_mse − si_sdr", "0.3 dB or less apart",
        "more than 1 dB apart", "make study STUDY=denoise", denoising.log_mse_as_si_sdr,
    ),
    Claim(
        "C11", "Guarded losses train on silent targets", "trainings with a batch that is not finite; attenuation of noise alone",
        "none", "any", "make study STUDY=silence", denoising.silent_targets,
    ),
    Claim(
        "C12", "Deep features need training", "PESQ-WB: trained − random features; against mel_l1",
        "trained above random; mel bands tie (Germain et al. 2018; Saddler et al. 2020)", "random features are better",
        "make study STUDY=deep_feature", denoising.deep_features,
    ),
    Claim(
        "C13", "Losses of a classifier tie on clean, balanced data", "accuracy on the cleanest items: focal − cross_entropy",
        "within a point", "focal is better by more than a point", "make study STUDY=keywords", others.focal_as_cross_entropy,
    ),
    Claim(
        "C14", "A loss costs what its fastest known implementation does", "ms in ms of mse, alone, over what was published; "
        "step in steps of the reference", "1.3 times the published or less, on one CPU thread", "more than that", "make bench",
        others.costs_as_published,
        reason="what is beyond it are cheap losses divided by an mse that takes 0.2 ms here where 0.36 were published: in ms they "
        "are no slower",
    ),
)  # fmt: skip


def check(results: Results, analysis: Analysis) -> list[tuple[Claim, list[Finding]]]:
    """Every claim with what each protocol says of it, protocols in the order of the report."""
    protocols = [] if results.runs.empty else [str(name) for name in dict.fromkeys(results.runs["protocol"])]
    views = [View(results, analysis, protocol) for protocol in protocols]
    asked = [Evidence(view) for view in views if view.sets]
    return [(claim, [found for e in asked if (found := _finding(claim, e)) is not None]) for claim in CLAIMS]


def _finding(claim: Claim, e: Evidence) -> Finding | None:
    parts = claim.check(e)
    if not parts:
        return None
    few = words.preliminary(e.view.results, e.view.analysis, e.view.protocol)
    return Finding(e.view.protocol, e.view.title, verdict(parts, claim.several), tuple(parts), tuple(few))
