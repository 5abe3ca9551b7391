"""The answer in a paragraph: which loss is best, what ties with it, what a better or worse one costs, and what is missing."""

from __future__ import annotations

import pandas as pd

from harness.intervals import ALPHA
from harness.metrics import METRICS
from harness.report import cost, words
from harness.report.numbers import listed, times
from harness.report.view import View

MOST_TIED = 4  # names in a sentence
COSTLY = 1.2  # times the reference's step from which on a cost is worth a word


def sentences(view: View) -> list[str]:
    """Sentences with numbers; none where no trained loss has test scores. What was looked at are the first test set and, of the
    places where cost was measured, that of the runs."""
    if not view.answers:
        return []
    said = []
    for place, name in enumerate(view.answers):
        said += _best(view, name, place == 0)
    return [*said, *_costs(view), *missing(view)]


def _best(view: View, test_set: str, first: bool) -> list[str]:
    """The best loss for the first metric with what ties with it; those for the others; the best overall."""
    answers = view.answers[test_set]
    singles = [a for a in answers if "loss" in a]
    head, *others = singles
    where = f"On {view.title} the" if first else f"On {test_set.replace('_', ' ')} items the"
    said = f"{where} best loss for {head['label']} is {_with_gain(view, head)}"
    if head["tied"] and view.once & {head["loss"], *head["names"]}:
        said += f"; one seed does not tell it from {listed(head['names'], MOST_TIED)}"
    elif head["tied"]:
        said += f"; {listed(head['names'], MOST_TIED)} {'is' if len(head['names']) == 1 else 'are'} tied with it"
    elif not head["alone"]:
        said += ", better than every other for certain"
    found = [f"{said}."]
    if others:
        found.append(
            "For " + "; for ".join(f"{a['label']} it is {_with_gain(view, a)}{_ties(a)}" for a in others) + "."
        )
    for answer in [a for a in answers if "losses" in a] if first and not view.once else []:
        first_of_all = f"{answer['losses']} rank{'' if ' and ' in answer['losses'] else 's'} first"
        over = f"ver {answer['referees']}, which no loss with an overall place optimises,"
        found.append(f"O{over} {first_of_all}." if not answer["all"] else f"Nothing parts the losses o{over[:-1]}.")
    return found


def _ties(answer: dict) -> str:
    count = len(answer["names"])
    return f", tied with {answer['names'][0] if count == 1 else f'{count} others'}" if count else ""


def _with_gain(view: View, answer: dict) -> str:
    if not answer["gain"]:
        return f"{answer['loss']} ({answer['value']})"
    unsure = ", worse for certain" if answer["worse"] else ", not for certain" if answer["sure"] is False else ""
    return f"{answer['loss']} ({answer['gain']} over {view.baseline}{unsure})"


def _costs(view: View) -> list[str]:
    """What losses cost beside the reference, where that brought nothing, and what the best costs."""
    rows = cost.at_home(view)
    if rows.empty or not view.headline or not view.sets:
        return ["What the losses cost has not been measured beside the reference."]
    place = str(rows["place"].iloc[0])
    ratio = dict(zip(rows["name"], rows["step_ratio"], strict=True))
    best = [a["loss"] for a in view.answers.get(view.sets[0], []) if "loss" in a]
    said = []
    dear = [n for n in dict.fromkeys(best) if ratio.get(n, 0.0) >= COSTLY and n != view.reference]
    if dear:
        said.append(f"{_with_ratios(dear, ratio)} the step of {view.reference}.")
    vain = [name for name in ratio if ratio[name] >= COSTLY and name not in best and not gains(view, name)]
    vain.sort(key=lambda name: -ratio[name])
    if vain:
        said.append(f"{_with_ratios(vain, ratio)} the step for no measurable gain over {view.reference}.")
    return [f"{text.removesuffix('.')} ({place})." if k == 0 else text for k, text in enumerate(said)]


def _with_ratios(names: list[str], ratio: dict[str, float]) -> str:
    """ "a costs 3.1 ×", "a costs 3.1 × and b 1.4 ×"."""
    parts = [f"{name} {'costs ' if k == 0 else ''}{times(ratio[name])}" for k, name in enumerate(names)]
    return listed(parts)


def gains(view: View, name: str) -> bool:
    """Whether a loss beats the reference for certain on any headline metric of the first test set."""
    pairs = view.analysis.pairs
    own = (
        (pairs["protocol"] == view.protocol) & (pairs["test_set"] == view.sets[0]) & pairs["metric"].isin(view.headline)
    )
    better = own & (pairs["a"] == name) & (pairs["b"] == view.reference) & (pairs["p_adjusted"] < ALPHA)
    return bool(better.any())


def missing(view: View) -> list[str]:
    """What the ranking lacks, counted; its details stand among the cautions."""
    rows = view.ranking[view.ranking["metric"].isin([*METRICS])]
    diverged = int((view.losses["state"] == "diverged").sum())
    stale = view.runs.loc[view.runs["stale"], "name"].nunique()
    fresh = view.runs[~view.runs["stale"]]
    counts = [
        (int(rows["floored"].sum()), "score that fell to its floor", "scores that fell to their floor"),
        (diverged, "diverged seed", "diverged seeds"),
        (int(stale), "stale loss, not ranked", "stale losses, not ranked"),
        (_more(fresh["commit"]), "version of the code", "versions of the code"),
    ]
    said = [f"{count} {one if count == 1 else many}" for count, one, many in counts if count]
    few = words.preliminary(view.results, view.analysis, view.protocol)
    parts = [*(["the ranking is preliminary"] if few else []), *said]
    return [f"To bear in mind: {listed(parts)}."] if parts else []


def _more(values: pd.Series) -> int:
    """How many different values there are, 0 for one."""
    count = values.dropna().nunique()
    return count if count > 1 else 0
