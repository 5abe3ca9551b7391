"""Claims on weights of combinations, and on the learning rate."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.stats import spearmanr

from harness.intervals import interval, two_way
from harness.report import regret, reliability, search
from harness.report.blocks import each
from harness.report.claims.claim import FAILS, HOLDS, TOLD, UNSURE, Part, above, below
from harness.report.claims.evidence import Evidence
from harness.report.claims.statistics import trend
from harness.report.quality import QUALITY

LIKE_PESQ, WAVEFORM = "pmsqe", ("si_sdr", "snr", "log_mse")
LEAST_DOSES = 4
MOST_REGRET = 0.25


def dose(e: Evidence) -> list[Part]:
    """C7."""
    doses: dict[str, dict[float, str]] = {}
    for name, weights in e.pairs.items():
        if LIKE_PESQ in weights and e.entrants[name][1] == "fixed":
            other = next(term for term in weights if term != LIKE_PESQ)
            doses.setdefault(other, {})[weights[LIKE_PESQ] / weights[other]] = name
    found: list[Part] = []
    for other, names in doses.items():
        if other not in WAVEFORM:
            continue
        ends = {0.0: e.name(other), np.inf: e.name(LIKE_PESQ)}
        order = dict(sorted({**{weight: name for weight, name in ends.items() if name}, **names}.items()))
        for metric, rises in (("pesq_wb", True), ("si_sdr", False)):
            judged = e.judged(metric, list(order.values()))
            if len(judged) >= LEAST_DOSES:
                found.append(_slope(e, metric, judged, rises))
    return found


def _slope(e: Evidence, metric: str, names: list[str], rises: bool) -> Part:
    scores = e.blocks[metric].together(names)
    estimate = two_way(trend(scores), e.blocks[metric].of_items)
    low, high = (float(end) for end in interval(estimate))
    rho = float(spearmanr(np.arange(len(names)), scores.mean(axis=(1, 2))).statistic)
    what = f"{'rise' if rises else 'fall'} a step over {len(names)} weights (Spearman {rho:+.2f})".replace("-", "−")
    found = above(low, high) if rises else below(low, high)
    return Part(what, found, metric, float(estimate.mean), low, high, scores.shape[1])


def learned_weights(e: Evidence) -> list[Part]:
    """C8. Judged by the selection score, for which weights and rates were tuned: of one metric alone any weight may be best."""
    balanced = search.balances(e.view)
    block = e.blocks.get(QUALITY)
    if block is None or balanced.empty:
        return []
    pairs: dict[str, tuple[str, str]] = {}
    for group, own in balanced.drop_duplicates("name").groupby("group", sort=False):
        names = dict(zip(own["weighting"], own["name"], strict=True))
        if all(names.get(kind) in block.losses for kind in ("uncertainty", "equal")):
            pairs[str(group)] = (names["uncertainty"], names["equal"])
    found = []
    for group, d in zip(pairs, e.compare(QUALITY, list(pairs.values())) if pairs else [], strict=True):
        values = block.difference(d.a, d.b)
        one_sided = float(interval(two_way(values, block.of_items), 0.1)[0])  # as good or better in 95 of 100
        said = HOLDS if one_sided >= 0 else FAILS if d.high < 0 else UNSURE
        found.append(Part(f"{group}: uncertainty − equal", said, QUALITY, d.mean, d.low, d.high, d.seeds))
    rows = regret.table(e.view, balanced)
    mine = rows["name"].map(lambda name: e.entrants[name][1].startswith("uncertainty"))
    for row in each(rows[mine & (rows["metric"] == QUALITY) & (rows["test_set"] == block.test_set)]):
        undefined = f" ({regret.UNDEFINED})" if np.isnan(row.regret) else ""
        said = below(row.low, row.high, MOST_REGRET)
        found.append(Part(f"{row.group}: regret{undefined}", said, "ratio", row.regret, row.low, row.high, row.seeds))
    return found


def rate_matters(e: Evidence) -> list[Part]:
    """C9. Best rates differ where each of two losses is worse at the other's by more than seeds differ."""
    tuning = e.view.results.tuning
    own = tuning[(tuning["protocol"] == e.view.protocol) & tuning["loss"].isin(e.singles)] if len(tuning) else tuning
    own = own[~own["searched"].astype(bool)] if "searched" in own else own  # a search tries no two losses at one rate
    if own.empty:
        return []
    grid = (
        own.assign(score=own["score"].astype(float))
        .pivot_table(index="loss", columns="lr", values="score")
        .dropna(how="all")
    )
    if len(grid) < 2 or grid.shape[1] < 2:
        return []
    spread = reliability.spread(e.view.results.curves, e.view.losses[~e.view.losses["stale"]])
    best, top = grid.idxmax(axis=1), grid.max(axis=1)
    crossed = [
        (a, b)
        for a, b in combinations(grid.index, 2)
        if best[a] != best[b] and min(top[a] - grid.loc[a, best[b]], top[b] - grid.loc[b, best[a]]) > spread
    ]
    within = float((top - grid.min(axis=1)).median())
    between = float(np.median(np.diff(np.sort(top.to_numpy()))))
    apart = HOLDS if crossed else FAILS if best.nunique() == 1 else UNSURE
    larger = (
        UNSURE if np.isnan(spread) else HOLDS if within > max(between, spread) else FAILS if within < spread else UNSURE
    )
    pairs = len(grid) * (len(grid) - 1) // 2
    return [
        Part(f"pairs of {pairs} whose best rates differ by more than seeds do", apart, "share", len(crossed) / pairs),
        Part("worst to best rate of a loss, median of the score", larger, QUALITY, within),
        Part("between neighbours at their best rates, median of the score", TOLD, QUALITY, between),
        Part("between seeds, standard deviation of the score", TOLD, QUALITY, spread),
    ]
