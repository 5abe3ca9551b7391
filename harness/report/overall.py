"""What the rankings of single metrics add up to: the overall rank, and who bought one metric with another."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.intervals import ALPHA
from harness.metrics import METRICS

OVERALL = "overall"
# P.835 is one listening test with three questions: its overall score speaks for all three, and no loss trains on it.
ALWAYS_REFEREE = "dnsmos_ovrl"
SAME_TEST = {"dnsmos_sig", "dnsmos_bak"}


def overall_rows(rows: list[dict]) -> tuple[list[dict], dict[tuple[str, str], list[str]]]:
    """Rows of metric "overall", and the referees: the metrics that no ranked loss of the table targets.

    Where some losses have all the seeds of a full study, they alone decide which those are, so that a loss which joins their table
    with fewer takes no referee away from them: one that targets a referee has no row.

    rows: the ranking of single metrics as dicts, with `targets`, `full` (whether it has all seeds) and `mid_rank`. One row a
    protocol, test set and loss that all referees judged. Returns also (protocol, test set) -> referee metrics, the same for all
    losses.
    """
    overall: list[dict] = []
    referees: dict[tuple[str, str], list[str]] = {}
    ranked = [row for row in rows if row["rank"] is not pd.NA]
    for protocol, test_set in dict.fromkeys((row["protocol"], row["test_set"]) for row in ranked):
        table = [row for row in ranked if (row["protocol"], row["test_set"]) == (protocol, test_set)]
        deciding = [row for row in table if row["full"]] or table
        targeted = {metric for row in deciding for metric in row["targets"]} - {ALWAYS_REFEREE} | SAME_TEST
        measured = {row["metric"] for row in table}
        chosen = referees[protocol, test_set] = [m for m in METRICS if m in measured and m not in targeted]
        own: dict[str, list[dict]] = {}
        for row in table:
            if row["metric"] in chosen and not set(row["targets"]) & set(chosen) - {ALWAYS_REFEREE}:
                own.setdefault(row["loss"], []).append(row)
        judged = {loss: r for loss, r in own.items() if len(r) == len(chosen)}
        mean_rank = pd.Series(
            {loss: np.mean([r["mid_rank"] for r in own]) for loss, own in judged.items()}, dtype=float
        )
        place = mean_rank.rank(method="min")
        for loss in mean_rank.sort_values(kind="stable").index:
            verdict: dict = {"metric": OVERALL, "target": False, "mean": mean_rank[loss], "low": np.nan, "high": np.nan}
            own_rows = judged[loss]
            verdict |= {
                "items": min(row["items"] for row in own_rows),
                "missing": max(row["missing"] for row in own_rows),
            }
            verdict |= {"floored": sum(row["floored"] for row in own_rows)}
            overall.append(judged[loss][0] | verdict | {"rank": int(place[loss]), "tie_group": ""})
    return overall, referees


def goodhart(pairs: list[dict], facts: dict, referees: dict[tuple[str, str], list[str]]) -> list[dict]:
    """Losses that beat the reference for certain on a metric they optimise and lose to it on a referee.

    pairs: rows of `pairs`; facts: (protocol, loss) -> role and targets. Returns rows: protocol, test_set, loss, gained,
    lost (names of metrics, separated by spaces).
    """
    found: dict[tuple, dict[str, list[str]]] = {}
    for pair in pairs:
        for name, other, sign in ((pair["a"], pair["b"], 1), (pair["b"], pair["a"], -1)):
            mine, theirs = facts[pair["protocol"], name], facts[pair["protocol"], other]
            if theirs["role"] != "reference" or not pair["p_adjusted"] < ALPHA:
                continue
            verdict = found.setdefault((pair["protocol"], pair["test_set"], name), {"gained": [], "lost": []})
            if sign * pair["diff"] > 0 and pair["metric"] in mine["targets"]:
                verdict["gained"].append(pair["metric"])
            if sign * pair["diff"] < 0 and pair["metric"] in referees[pair["protocol"], pair["test_set"]]:
                verdict["lost"].append(pair["metric"])
    return [
        {"protocol": key[0], "test_set": key[1], "loss": key[2]} | {k: " ".join(v) for k, v in verdict.items()}
        for key, verdict in found.items()
        if verdict["gained"] and verdict["lost"]
    ]
