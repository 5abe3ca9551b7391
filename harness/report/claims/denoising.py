"""Claims on losses of a denoiser: who wins what, and where."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product

import numpy as np

from harness.report.claims.claim import FAILS, HOLDS, TOLD, UNSURE, Part, above, below, within
from harness.report.claims.evidence import Evidence
from harness.report.claims.statistics import mean_ranks, resampled_means
from harness.report.differences import Difference
from harness.report.numbers import listed

FAMILY = ("si_sdr", "snr", "log_mse", "wsdr")
PERCEPTUAL = ("pmsqe", "estoi", "complex_compressed")
PLAIN = ("mse", "spectral_mag", "si_sdr", "stoi", "estoi", "pmsqe")  # that Kolbaek et al. 2020 compared
WAVEFORM = ("l1", "mse", "smooth_l1", "si_sdr", "snr", "log_mse")
MAGNITUDE = ("spectral_mag", "multi_res_stft", "log_mel", "mel_l1")
MASKS, WAVES = ("gru_mask", "gru_mask_pair"), ("conv_tasnet", "conv_tasnet_pair")
RANKED = ("pesq_wb", "stoi", "estoi", "si_sdr")
DB = 1.0  # of SI-SDR: from here on a difference is one
FEWEST = 4  # losses that a mean rank says something of


def estoi_wins(e: Evidence) -> list[Part]:
    """C1."""
    parts = _against_the_best(e, "estoi", "estoi", "the loss on ESTOI")
    stoi = _best_other(e, "stoi", "estoi")
    return [*parts, *(_told(stoi, "stoi") if parts and stoi else [])]


def family_on_top(e: Evidence) -> list[Part]:
    """C2."""
    metric = "si_sdr"
    family, perceptual = (e.judged(metric, e.names(*names)) for names in (FAMILY, PERCEPTUAL))
    if e.model not in MASKS or len(family) < 2 or not perceptual:
        return []
    found = e.compare(metric, list(product(family, perceptual)))
    lost = {b for b in perceptual if all(d.sure and d.mean < 0 for d in found if d.b == b)}  # ahead of the whole family
    over = FAILS if lost else HOLDS if all(d.sure and d.mean > 0 for d in found) else UNSURE
    least = min(found, key=lambda d: d.mean)
    apart = e.compare(metric, list(combinations(family, 2)))
    most = max(apart, key=lambda d: abs(d.mean))
    each = [within(d.low, d.high, DB) for d in apart]
    tie = FAILS if FAILS in each else HOLDS if all(one == HOLDS for one in each) else UNSURE
    return [
        _part(f"{least.a} − {least.b}, the closest of {len(found)}", over, metric, least),
        _part(f"{most.a} − {most.b}, the widest within the family (a tie: under {DB:g} dB)", tie, metric, most),
    ]


def pmsqe_by_architecture(e: Evidence) -> list[Part]:
    """C3."""
    metric = "pesq_wb"
    mine = e.name("pmsqe")
    if not e.judged(metric, [mine]):
        return []
    if e.model in MASKS:
        return _against_the_best(e, metric, "pmsqe", "given the phase, PMSQE")
    others = e.judged(metric, [name for name in e.singles if name != mine])
    if e.model not in WAVES or not others:
        return []
    found = e.compare(metric, [(mine, other) for other in others])
    weakest = max(found, key=lambda d: d.mean)
    bottom, top = (all(d.sure and sign * d.mean > 0 for d in found) for sign in (-1, 1))
    last = HOLDS if bottom else FAILS if top else UNSURE
    return [_part(f"without the phase, PMSQE − {weakest.b}, the lowest other", last, metric, weakest)]


def all_rounder(e: Evidence) -> list[Part]:
    """C4. A mean rank grows with the number of losses that are nearly one, so that it is taken among those of the source."""
    mine, names = e.name("si_sdr"), e.names(*PLAIN)
    metrics = [metric for metric in RANKED if e.judged(metric, [mine])]
    names = [name for name in names if all(e.judged(metric, [name]) for metric in metrics)]
    if len(metrics) < len(RANKED) or mine not in names or len(names) < FEWEST:
        return []
    tables = [e.blocks[metric].together(names) for metric in metrics]
    place, seeds = names.index(mine), tables[0].shape[1]
    rank = float(mean_ranks(np.stack([table.mean(axis=(1, 2)) for table in tables]))[place])
    absent = [loss for loss in PLAIN if e.name(loss) not in names]
    without = f", without {listed(absent)}" if absent else ""
    what = f"mean rank of {mine} among {len(names)} of the {len(PLAIN)} losses{without}"
    if seeds < 2:
        return [Part(what, UNSURE, "rank", rank, seeds=seeds)]
    drawn = mean_ranks(resampled_means(tables, [e.blocks[metric].of_items for metric in metrics]))[:, place]
    chance = float((drawn <= 2).mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    found = HOLDS if chance >= 0.8 else FAILS if rank > 2 else UNSURE
    return [
        Part(what, found, "rank", rank, float(low), float(high), seeds),
        Part("chance that it is 2 or less", TOLD, "share", chance, seeds=seeds),
    ]


def blind_to_phase(e: Evidence) -> list[Part]:
    """C5."""
    blind, heard = e.name("spectral_mag"), e.names("l1", "mse", "si_sdr")
    if e.model not in WAVES or not e.judged("si_sdr", [blind]) or not e.judged("si_sdr", heard):
        return []
    pair = (blind, e.judged("si_sdr", heard)[0])
    (drop,) = e.compare("si_sdr", [pair])
    no_drop = FAILS if drop.low > -DB else UNSURE  # a drop of a dB or more is excluded
    found = HOLDS if below(drop.low, drop.high) == HOLDS else no_drop
    more = [
        part for metric in ("pesq_wb", "estoi") if e.judged(metric, [blind]) for part in _told_pair(e, metric, pair)
    ]
    return [_part(f"{drop.a} − {drop.b}", found, "si_sdr", drop), *more]


def magnitude_added(e: Evidence) -> list[Part]:
    """C6."""
    pairs = []
    for name, terms in e.pairs.items():
        if set(terms) & set(MAGNITUDE) and set(terms) & set(WAVEFORM):
            alone = e.name(next(term for term in terms if term in WAVEFORM))
            pairs += [(name, alone)] if e.judged("pesq_wb", [name]) and e.judged("pesq_wb", [alone]) else []
    if not pairs:
        return []
    gained, lost = e.compare("pesq_wb", pairs), e.compare("si_sdr", pairs)
    found = [_part(f"{d.a} − {d.b}", above(d.low, d.high), "pesq_wb", d) for d in gained]
    return [*found, *(_part(f"{d.a} − {d.b}", TOLD, "si_sdr", d) for d in lost)]


def log_mse_as_si_sdr(e: Evidence) -> list[Part]:
    """C10."""
    names = e.judged("si_sdr", e.names("log_mse", "si_sdr"))
    if len(names) < 2:
        return []
    (d,) = e.compare("si_sdr", [(names[0], names[1])])
    found = within(d.low, d.high, DB)
    return [_part(f"{d.a} − {d.b}", UNSURE if found == HOLDS and abs(d.mean) > 0.3 else found, "si_sdr", d)]


def silent_targets(e: Evidence) -> list[Part]:
    """C11. A training ends at the first batch whose loss or gradient is not finite, so that the share of such trainings tells of
    the batches."""
    runs = e.view.losses[~e.view.losses["stale"]]
    if "attenuation" not in e.blocks or runs.empty:
        return []
    diverged = runs[runs["state"] == "diverged"]
    share, seeds = len(diverged) / len(runs), int(runs.groupby("name")["seed"].nunique().min())
    names = list(dict.fromkeys(diverged["name"]))
    what = "trainings that met a batch that was not finite" + (f" ({', '.join(names)})" if names else "")
    block = e.blocks["attenuation"]
    weakest = min(block.losses, key=lambda name: float(block.losses[name].to_numpy().mean()))
    (least,) = e.compare("attenuation", [(weakest, block.baseline)])
    return [
        Part(what, FAILS if share else HOLDS, "share", share, seeds=seeds),
        _part(f"{weakest}, the least attenuation of noise alone", TOLD, "attenuation", least),
    ]


def deep_features(e: Evidence) -> list[Part]:
    """C12."""
    metric = "pesq_wb"
    trained, untrained, mel = (e.name(text) for text in ("deep_feature", "deep_feature(network='random')", "mel_l1"))
    if not (e.judged(metric, [trained]) and e.judged(metric, [untrained])):
        return []
    (d,) = e.compare(metric, [(trained, untrained)])
    more = _told_pair(e, metric, (trained, mel)) if e.judged(metric, [mel]) else []
    return [_part(f"{d.a} − {d.b}", above(d.low, d.high), metric, d), *more]


def _against_the_best(e: Evidence, metric: str, loss: str, called: str) -> list[Part]:
    """Whether a loss is better than every other single loss for certain (holds) or worse than one (fails)."""
    mine = e.name(loss)
    others = e.judged(metric, [name for name in e.singles if name != mine])
    if not e.judged(metric, [mine]) or not others:
        return []
    found = e.compare(metric, [(mine, other) for other in others])
    worse, better = (any(d.sure and d.mean < 0 for d in found), all(d.sure and d.mean > 0 for d in found))
    closest = min(found, key=lambda d: d.mean)
    said = FAILS if worse else HOLDS if better else UNSURE
    return [_part(f"{called}: {mine} − {closest.b}, the best of {len(others)} others", said, metric, closest)]


def _best_other(e: Evidence, metric: str, loss: str) -> list[Difference]:
    mine = e.name(loss)
    others = e.judged(metric, [name for name in e.singles if name != mine])
    if not e.judged(metric, [mine]) or not others:
        return []
    return [min(e.compare(metric, [(mine, other) for other in others]), key=lambda d: d.mean)]


def _told_pair(e: Evidence, metric: str, pair: tuple[str, str]) -> list[Part]:
    return _told(e.compare(metric, [pair]), metric)


def _told(found: Sequence[Difference], metric: str) -> list[Part]:
    return [_part(f"{d.a} − {d.b}", TOLD, metric, d) for d in found]


def _part(what: str, verdict: str, metric: str, d: Difference) -> Part:
    return Part(what, verdict, metric, d.mean, d.low, d.high, d.seeds)
