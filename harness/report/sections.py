"""The sections of a protocol's page: each a function of the view that returns what its template shows, {} for no section."""

from __future__ import annotations

from typing import Any

import pandas as pd
from markupsafe import Markup

from harness.metrics import METRICS
from harness.report import cautions, critical, fit, plots, raced, rank_plots, recognition, tables, verdict, words
from harness.report.blocks import Block, each
from harness.report.numbers import between, days
from harness.report.overall import OVERALL
from harness.report.reliability import ENOUGH_SEEDS
from harness.report.view import View, svg
from harness.tasks import TASKS


def about(view: View) -> dict[str, Any]:
    """What a page says of its protocol before anything else, and the index beside its address."""
    first = view.runs.iloc[0]
    updates = sorted(view.losses["updates"].dropna().unique())
    return {
        "synthetic": words.synthetic(first["corpus"]),
        "updates": ", ".join(f"{int(u)}" for u in updates),
        "count": int(view.losses["name"].nunique()),
        "seeds": between(view.losses.groupby("name")["seed"].nunique()),
        "devices": words.listed(sorted(view.runs["device"].dropna().astype(str).unique())),
        "made": days(view.runs["made"]),
        "commands": [text for text in dict.fromkeys(view.losses["study"].dropna()) if text],
    }


def answer(view: View) -> dict[str, Any]:
    """The answer in words, set by set, and what to know before believing it."""
    return {
        "sentences": verdict.sentences(view),
        "preliminary": words.preliminary(view.results, view.analysis, view.protocol),
        "cautions": cautions.cautions(view.results, view.analysis, view.protocol),
        "sets": list(view.answers.items()),
    }


def ranking(view: View) -> dict[str, Any]:
    """Every test set with its picture, its tables and what parts them."""
    few = words.few_seeds(view.results, view.protocol)
    some = (
        {name: f"preliminary, {count} seeds" for name, count in few.items()}
        if len(few) < view.losses["name"].nunique()
        else {}
    )
    notes: dict[str, str] = {}
    for found in (tables.reference_note(view.results, view.protocol), raced.notes(view.losses), some):
        notes |= {name: f"{notes[name]}; {note}" if name in notes else note for name, note in found.items()}
    return {"sets": [_test_set(view, name) for name in view.sets], "notes": notes}


def _test_set(view: View, name: str) -> dict[str, Any]:
    analysis, protocol = view.analysis, view.protocol
    order = tables.ordered(analysis, protocol, name)
    mine = [b for b in analysis.blocks if (b.protocol, b.test_set) == (protocol, name) and b.metric in view.headline]
    return {
        "name": name,
        "of": words.clusters(view.task, name),
        "remark": words.remark(view.task, name),
        "made_of": words.made_of(view.results, protocol, name),
        "fewer": _fewer(mine),
        "table": tables.ranking_table(analysis, protocol, name, view.headline),
        "more": tables.ranking_table(analysis, protocol, name, view.others) if view.others else [],
        "whole": recognition.of_set(view.results, protocol, name, order),
        "noise": words.noise(analysis, protocol, name),
        "identities": tables.identities_table(analysis, protocol, name),
        "judged": max((b.clusters.size - b.missing for b in mine), default=0),
        "clusters": max((b.clusters.nunique() for b in mine), default=0),
        "pairs": tables.pairs_table(analysis, protocol, name, view.headline),
        "picture": _ranking_picture(view, name, order),
        "heat": _heat_map(view, name, order),
        "critical": _critical(mine),
        "conditions": [(b.metric, tables.condition_tables(view.results, b, order)) for b in mine],
    }


def _fewer(mine: list[Block]) -> str:
    """Metrics that were judged on some of the items alone, and on how many: "DNSMOS OVRL on 20 items"; "" without any."""
    counts = {METRICS[b.metric].label: next(iter(b.losses.values())).shape[1] for b in mine if b.losses}
    most = max(counts.values(), default=0)
    return words.listed([f"{label} on {count} items" for label, count in counts.items() if count < most], 9)


def _ranking_picture(view: View, test_set: str, order: list[str]) -> Markup | None:
    key = ["protocol", "test_set", "metric", "loss"]
    ranked = view.analysis.ranking
    ranked = ranked[ranked["rank"].notna() & (ranked["metric"] != OVERALL)]
    table = view.analysis.gains.merge(ranked[[*key, "target", "tie_group"]], on=key)
    own = (table["protocol"] == view.protocol) & (table["test_set"] == test_set) & table["metric"].isin(view.headline)
    table = table[own]
    shown = [name for name in order if name in set(table["loss"])]
    return svg(plots.ranking(table, shown, str(table["baseline"].iloc[0]))) if shown else None


def _heat_map(view: View, test_set: str, order: list[str]) -> dict[str, Any]:
    gains = view.analysis.gains
    gains = gains[(gains["protocol"] == view.protocol) & (gains["test_set"] == test_set)]
    ranked = view.ranking.loc[(view.ranking["test_set"] == test_set) & view.ranking["rank"].notna()]
    table = gains.merge(ranked[["metric", "loss", "target"]], on=["metric", "loss"])
    shown = [name for name in order if name in set(table["loss"])]
    return tables.heat_map(table, shown) if shown and table["metric"].nunique() > 1 else {}


def _critical(mine: list[Block]) -> dict[str, Any]:
    """Diagrams of critical differences, or in words why there are none; {} for fewer than three losses or two seeds."""
    found = [(METRICS[b.metric].label, c) for b in mine if (c := critical.of_losses(b.losses)) is not None]
    if not found:
        return {}
    one = found[0][1]
    about = f"over {one.seeds} seeds, the critical difference of {len(one.losses)} losses is {one.difference:.1f} ranks (Nemenyi)"
    if not one.useful:
        return {
            "words": f"Ranked {about}, more than a third of them: a diagram would show nothing, so the letters stand for it."
        }
    chances = "; ".join(f"{label} p {c.p:.2g}" for label, c in found)
    words_ = f"Ranked {about}. Friedman test that all rank alike: {chances}."
    return {"words": words_, "pictures": [(label, svg(rank_plots.critical(c))) for label, c in found]}


def convergence(view: View) -> dict[str, Any]:
    """Validation metrics over updates and over seconds: the best losses and the reference in colour."""
    names = view.losses.loc[~view.losses["stale"], ["run_id", "name"]].rename(columns={"name": "loss"})
    if view.results.curves.empty:
        return {}
    curves = view.results.curves.merge(names, on="run_id")
    curves = curves[curves["metric"].isin(view.headline)].dropna(subset=["value"])
    if curves.empty:
        return {}
    best = [name for name in view.order if name in set(curves["loss"]) and name != view.reference]
    reference = [view.reference] if view.reference in set(curves["loss"]) else []
    shown = best[: len(plots.HIGHLIGHTS) - len(reference)] + reference
    found = {"updates": svg(plots.convergence(curves, shown))}
    timed = curves.dropna(subset=["seconds"])
    return found | ({"seconds": svg(plots.convergence(timed, shown, "seconds"))} if len(timed) else {})


def fitting(view: View) -> dict[str, Any]:
    """What was learned by heart, where a study judged what training hears; loss and weights over such a training."""
    gaps = fit.table(view.results, view.protocol)
    if not gaps:
        return {}
    names = view.losses.loc[~view.losses["stale"], ["run_id", "name"]].rename(columns={"name": "loss"})
    curves = view.results.fitting.merge(names, on="run_id")
    shown = [name for name in view.order if name in set(curves["loss"])]
    return {
        "gaps": gaps,
        "words": fit.words(gaps),
        "note": fit.note(view.baseline),
        "picture": svg(plots.convergence(curves, shown)) if len(curves) else None,
    }


def recognised(view: View) -> dict[str, Any]:
    """What a classifier confuses, how sure it is, where its classes lie."""
    if view.task in TASKS and "estimate" in TASKS[view.task].offered:
        return {}
    drawn = recognition.pictures(view.results, view.analysis, view.protocol, view.order)
    return {name: svg(picture) for name, picture in drawn.items()}


def learning_rates(view: View) -> dict[str, Any]:
    """Selection score over the learning rates that were tried."""
    if view.results.tuning.empty:
        return {}
    own = view.results.tuning[view.results.tuning["protocol"] == view.protocol]
    tuned = set(own["loss"])
    shown = [name for name in view.order if name in tuned] + sorted(tuned - set(view.order))
    return {"picture": svg(plots.learning_rates(own, shown))} if shown else {}


def method(view: View) -> dict[str, Any]:
    """How it was measured."""
    tau = view.analysis.reliability
    tau = tau[(tau["protocol"] == view.protocol) & tau["metric"].isin(view.headline)]
    whole = [recognition.of_set(view.results, view.protocol, name, view.order).get("about", []) for name in view.sets]
    measured = [words.MEASURED[m] for m in (*view.headline, *view.others) if m in words.MEASURED]
    return {
        "rules": words.rules(view.task, view.baseline),
        "measured": measured + list(dict.fromkeys(line for lines in whole for line in lines)),
        "reliability": [
            (
                METRICS[r.metric].label,
                r.test_set,
                "unknown" if pd.isna(r.tau) else f"{r.tau:.2f}",
                r.separated,
                r.pairs,
                f" ({r.judged} of them with at least {ENOUGH_SEEDS} seeds in common)" if r.judged < r.separated else "",
            )
            for r in each(tau)
        ],
    }


def recordings(view: View) -> dict[str, Any]:
    """Whose recordings these are, and what is wrong with them."""
    notes = view.results.notes.get(view.protocol, [])
    return {"notes": notes} if notes else {}
