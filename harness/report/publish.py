"""What a repository shows of its results: pages in Markdown with small pictures, and the part of its README that they answer.

Texts alone, by where they are to lie; nothing in them is of the hour at which they were made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.metrics import METRICS
from harness.report import advice, claims, cost, markdown, page, tables, words
from harness.report.blocks import each
from harness.report.claims import write
from harness.report.drawing import standalone
from harness.report.numbers import times
from harness.report.ranking import Analysis, analyse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from markupsafe import Markup

    from harness.report.page import Page
    from harness.report.runs import Results
    from harness.report.view import View

MARK = "<!-- written by make results -->"
PICTURES = "pictures"
MAIN_TASK = "denoise"  # whose table stands in the README
TOP = 8  # losses of it
AGAIN = (
    "These pages come from the runs in [runs](runs) alone, and the atlas from the numbers beside them. In a fresh clone the whole "
    "report is made of the runs by:"
)


def files(
    results: Results, folder: str, sources: Sequence[tuple[str, int, str]], atlas: pd.DataFrame | None = None
) -> tuple[dict[str, str], str]:
    """The pages and pictures of results by their path below `folder`, which is named as a README beside it names it, and the
    section of that README. Each page is Markdown that begins with MARK. sources: the exports that the results were read from,
    each by its path below `folder`, its number of runs and its hash. atlas: what `harness atlas` has measured."""
    analysis = analyse(results)
    timed = analyse(results.equal_time) if results.equal_time is not None else None
    made = page.pages_of(results, analysis, timed)
    texts: dict[str, str] = {}
    for one in made:
        texts[f"{one.view.stem}.md"] = markdown.protocol(one, _draw(texts, one.view.stem))
    addresses = {one.view.protocol: (one.view.heading, f"{one.view.stem}.md") for one in made}
    texts["throughput.md"] = markdown.throughput(cost.models(results, analysis, addresses))
    again = markdown.code([f"harness import {folder}/runs", "make report"])
    listed = markdown.table(["export", "runs", "sha256"], sources)
    checked = claims.check(results, analysis)
    texts["claims.md"] = markdown.joined([write.page(checked).rstrip(), "## The protocols", _protocols(made)])
    told = f"[Claims of the literature, and what these runs say](claims.md): {write.counted(checked)}."
    if atlas is not None:
        from harness.report.atlas import published  # and with it torch

        texts["atlas.md"] = published(atlas, _draw(texts, "atlas"))
        told += "\n\n[What each loss of an estimate minds, and is blind to](atlas.md)."
    texts["README.md"] = markdown.joined([markdown.index(made).rstrip(), told, "## The runs", AGAIN, again, listed])
    marked = {name: f"{MARK}\n\n{text}" if name.endswith(".md") else text for name, text in texts.items()}
    said = f"Of the literature's claims: {write.counted(checked)} ([claims]({folder}/claims.md))."
    return marked, "\n\n".join([*filter(None, _section(made, analysis, texts, folder)), said])


def _draw(texts: dict[str, str], stem: str) -> markdown.Draw:
    def draw(name: str, picture: Markup) -> str:
        path = f"{PICTURES}/{stem}.{name}.svg"
        texts[path] = standalone(str(picture))
        return path

    return draw


def _section(made: list[Page], analysis: Analysis, texts: dict[str, str], folder: str) -> Iterator[str]:
    """The paragraph, a line for each other task, the table of the main task and two of its pictures."""
    judged = [one for one in made if advice.sentence(one.view)]
    if not judged:
        yield f"No loss has been judged yet: [{folder}]({folder}/README.md)."
        return
    lead, *others = sorted(_largest(judged), key=_weight, reverse=True)
    yield "**Which loss should I use?** By task / corpus / model (study): " + markdown.escaped(
        " ".join(advice.sentences(lead.view))
    )
    yield "\n".join(
        f"- {markdown.escaped(advice.sentence(one.view))} [The page]({folder}/{one.view.stem}.md)." for one in others
    )
    test_set = lead.view.sets[0]
    heads, rows = top(lead.view, analysis, test_set)
    yield markdown.table(heads, rows)
    address = f"{folder}/{lead.view.stem}.md"
    yield (
        markdown.escaped(
            f"{lead.view.title}, {test_set} items: gain over {lead.view.baseline} with its 95 % interval, tie letters; ◇: the loss "
            f"optimises this metric. {lead.about['made']}, {lead.about['devices']}."
        )
        + f" [The whole table]({address}), [all pages]({folder}/README.md)."
    )
    for name in (f"ranking-{test_set}", "cost-1"):
        path = f"{PICTURES}/{lead.view.stem}.{name}.svg"
        if path in texts:
            yield f"[![{name.split('-')[0]}]({folder}/{path})]({address})"


def _protocols(made: list[Page]) -> str:
    heads = ["protocol", "of", "losses", "seeds", "device", "days"]
    rows = [
        (one.view.protocol, one.view.heading, about["count"], about["seeds"], about["devices"], about["made"])
        for one in made
        for about in [one.about]
    ]
    return markdown.table(heads, rows)


def _largest(judged: list[Page]) -> list[Page]:
    """Of each task and model the page that counts most, and the one that counts most of those that weigh terms against each other,
    if it has several seeds: beside them, those of special questions would only confuse."""
    found: dict[tuple[str, bool], Page] = {}
    for one in judged:
        key = one.view.title, _weighs(one)
        found[key] = max(found.get(key, one), one, key=_weight)
    return [one for (title, weighs), one in found.items() if not (weighs and one.view.once and (title, False) in found)]


def _weight(one: Page) -> tuple[bool | int, ...]:
    """The main task before others, several seeds before one, single losses before weightings, a full study before a preliminary
    one, the longest trainings before shorter ones; then the most losses."""
    view = one.view
    few = words.preliminary(view.results, view.analysis, view.protocol)
    shorter = any(view.protocol in protocols for protocols in view.results.shorter.values())
    return view.task == MAIN_TASK, not view.once, not _weighs(one), not few, not shorter, len(view.losses)


def _weighs(one: Page) -> bool:
    return one.view.losses["weighting"].nunique() > 1


def top(view: View, analysis: Analysis, test_set: str) -> tuple[list[str], list[list[str]]]:
    """The first losses of a ranking, those that are advised and the reference, as text: gains with their intervals, and the time of
    a step."""
    table = tables.ranking_table(analysis, view.protocol, test_set, view.headline)
    rows = [row for row in table if row["kind"] == "loss"]
    kept = {view.reference, *(name for a in view.answers.get(test_set, []) for name in a.get("unbeaten", ()))}
    rows = rows[:TOP] + [row for row in rows[TOP:] if row["loss"] in kept]
    costs = cost.at_home(view)
    steps = {row.name: f"{row.updates_per_s:.1f} updates/s, {times(row.step_ratio)}" for row in each(costs)}
    place = f" ({costs['place'].iloc[0]})" if len(costs) else ""

    def cell(row: dict, metric: str) -> str:
        own = row["cells"].get(metric)
        if own is None:
            return "–"
        told = own["gain"] or own["value"], own["gain_interval"], own["letters"]
        return " ".join(filter(None, ("◇" if own["target"] else "", *told)))

    heads = ["loss", "overall", *(METRICS[metric].label for metric in view.headline), f"step{place}"]
    return heads, [
        [row["loss"], row["place"], *(cell(row, metric) for metric in view.headline), steps.get(row["loss"], "–")]
        for row in rows
    ]
