"""A report as Markdown: the answer, the tables and the cautions, for a repository or a message. Names from outside are escaped.

Pictures stand in it where its writer is given a place for them: `draw` keeps one under a name and returns its address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.metrics import METRICS
from harness.report import tables

if TYPE_CHECKING:
    from markupsafe import Markup

    from harness.report.page import Page
    from harness.report.view import View

Draw = Callable[[str, "Markup"], str]


def escaped(text: object) -> str:
    """Text in which nothing is markup, of Markdown or of HTML, in a table or outside of one."""
    return re.sub(
        r"([\\`*_{}\[\]#|~])", r"\\\1", str(text).replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with every cell escaped; "" without rows."""
    cells = [[escaped(cell) for cell in row] for row in rows]
    frame = pd.DataFrame(cells, columns=[escaped(head) for head in heads])
    return frame.to_markdown(index=False, disable_numparse=True) if len(frame) else ""


def code(lines: Iterable[str]) -> str:
    """Commands as they stand, however many backticks are in them; "" without any."""
    text = "\n".join(line.replace("\n", " ") for line in lines)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}sh\n{text}\n{fence}" if text else ""


def protocol(page: Page, draw: Draw | None = None) -> str:
    """The page of a protocol."""
    view, about, shown = page.view, page.about, {section.name: it for section, it in page.sections}
    updates = f", {about['updates']} updates" if about["updates"] else ""
    parts = [
        f"# {escaped(view.heading)}{' (preliminary)' if page.answer['preliminary'] else ''}",
        f"Losses: {about['count']}, seeds: {about['seeds']}{updates}, on {escaped(about['devices'])}, {about['made']}. "
        f"Protocol {escaped(view.protocol)}.",
        code(about["commands"]),
        "Synthetic speech: says little about people." if about["synthetic"] else "",
        *_answer(page.answer),
        "## Ranking",
        *(part for one in shown["ranking"]["sets"] for part in _ranking(view, one, shown["ranking"]["notes"], draw)),
        *_settled(shown.get("settled", {})),
        *_equal_time(shown.get("equal_time", {})),
        "## Throughput",
        cost(shown.get("cost", {}).get("table", {})),
        *(
            part
            for number, (place, drawn) in enumerate(shown.get("cost", {}).get("pictures", []), 1)
            for part in _cost_picture(view, draw, number, place, drawn)
        ),
        *_fitting(shown.get("fitting", {}), draw),
        *_balance(shown.get("balance", {}), draw),
        "## How it was measured",
        escaped(" ".join(shown["method"]["measured"])),
        escaped(shown["method"]["rules"]),
        escaped(_reliability(shown["method"]["reliability"])),
        *(["## Recordings", _list(shown["recordings"]["notes"])] if "recordings" in shown else []),
    ]
    return joined(parts)


def index(pages: list[Page]) -> str:
    """The index: each protocol with its answer."""
    parts = ["# Which loss should train my speech model?"]
    if not pages:
        parts.append("Nothing has been run yet. Start with `make study LOSS=si_sdr`.")
    for page in pages:
        parts += [
            f"## [{escaped(page.view.heading)}]({page.view.stem}.md)",
            escaped(" ".join(page.answer["sentences"])),
        ]
    return joined([*parts, "[What each loss costs](throughput.md)" if pages else ""])


def throughput(models: list[dict[str, Any]]) -> str:
    """The page of throughput."""
    parts = ["# What each loss costs"]
    for one in models:
        parts += [f"## {escaped(one['model'] or 'Model not known')}", f"Measured {one['made']}.", cost(one["table"])]
    if models:
        parts.append(
            "Measured again, on an idle machine, by `make bench`; a study measures its own losses when it ends."
        )
    return joined(parts if models else [*parts, "Throughput was not measured."])


def cost(found: dict[str, Any]) -> str:
    """One table a device: beside each other they would be too wide for a text."""
    if not found:
        return "Throughput was not measured."
    width = len(found["heads"])
    parts = []
    for place, name in enumerate(found["places"]):
        own = [(loss, *cells[place * width : (place + 1) * width]) for loss, cells in found["rows"]]
        own = [row for row in own if any(cell != "–" for cell in row[1:])]
        own.sort(key=lambda row: float("inf") if row[1] == "–" else float(row[1]))
        shown = [0, *(k for k in range(1, width + 1) if any(row[k] != "–" for row in own))]
        heads = ["loss", *found["heads"]]
        parts += [f"### {escaped(name)}", table([heads[k] for k in shown], [[row[k] for k in shown] for row in own])]
    return joined(parts if found["gpu"] else [*parts, "GPU: not measured."]).rstrip()


def _answer(answer: dict[str, Any]) -> list[str]:
    parts = [escaped(" ".join(answer["sentences"])) or "No trained loss has test scores yet."]
    if answer["preliminary"]:
        parts.append(f"**Preliminary:** {escaped('; '.join(answer['preliminary']))}.")
    if answer["cautions"]:
        parts += ["## Before you believe it", _list(answer["cautions"])]
    return parts


def _picture(draw: Draw | None, name: str, says: str, picture: Markup | None) -> str:
    return f"![{escaped(says)}]({draw(name, picture)})" if draw is not None and picture else ""


def _ranking(view: View, one: dict[str, Any], notes: dict[str, str], draw: Draw | None) -> list[str]:
    test_set = one["name"]
    own = tables.ranking_table(view.analysis, view.protocol, test_set, (*view.headline, *view.others))
    for row in own:
        row["state"] = "; ".join(filter(None, (row["state"], notes.get(row["loss"], ""))))
    fewer = f"Judged on fewer: {one['fewer']}." if one["fewer"] else ""
    note = (
        f"Mean, gain over {view.baseline} with its 95 % interval, tie letters: tied losses share one. ◇: the loss optimises this "
        "metric. Overall: the place by mean rank over the metrics that no loss ranked by it optimises, ties counting half."
    )
    says = f"Gain over {view.baseline} of every loss with its 95 % interval, {test_set.replace('_', ' ')} items"
    drawn = _picture(draw, f"ranking-{test_set}", says, one["picture"])
    key = "Blue: tied with the best; open diamond: the loss optimises this metric. Compare by letters, not by overlap of intervals."
    more = table(*_rows(own, view.others, False)) if view.others else ""
    return [
        f"### {_set_name(test_set)}: {one['judged']} items, {one['clusters']} {one['of']}",
        escaped(" ".join(filter(None, (one["remark"], one["made_of"], fewer)))),
        table(*_rows(own, view.headline, True)),
        escaped(note),
        drawn,
        key if drawn else "",
        f"The harness’s own noise. {escaped(one['noise'])}" if one["noise"] else "",
        f"Other metrics, {test_set.replace('_', ' ')} items:" if more else "",
        more,
    ]


def _rows(own: list[dict[str, Any]], metrics: tuple[str, ...], whole: bool) -> tuple[list[str], list[tuple]]:
    """Heads and rows of a ranking by some metrics. whole: with places and intervals."""
    heads = ["loss", "state", "overall"] if whole else ["loss"]
    rows = [
        (
            row["loss"],
            *((row["state"], row["place"]) if whole else ()),
            *(_cell(row["cells"].get(metric), whole) for metric in metrics),
            *((row["seeds"] or "–",) if whole else ()),
        )
        for row in own
    ]
    return [*heads, *(METRICS[metric].label for metric in metrics), *(["seeds"] if whole else [])], rows


def _cell(cell: dict[str, Any] | None, whole: bool) -> str:
    if cell is None:
        return "–"
    told = (
        "◇" if cell["target"] else "",
        cell["value"],
        cell["gain"],
        cell["gain_interval"] if whole else "",
        cell["letters"],
    )
    return " ".join(filter(None, told))


def _set_name(test_set: str) -> str:
    return escaped(test_set.replace("_", " ").capitalize())


def _cost_picture(view: View, draw: Draw | None, number: int, place: str, drawn: Markup) -> list[str]:
    shown = _picture(draw, f"cost-{number}", f"Gain over {view.baseline} against the time of a step on {place}", drawn)
    key = f"{escaped(place)}. Diamonds and bold: no other loss is both cheaper and better."
    return [shown, key] if shown else []


def _reliability(rows: list[tuple]) -> str:
    """Whether other seeds would rank alike, in words; "" where it was not judged."""
    told = [
        f"{label} ({test_set}) {tau}, {apart} of {pairs} pairs{judged}"
        for label, test_set, tau, apart, pairs, judged in rows
    ]
    what = "Agreement of rankings from disjoint halves of the seeds, tau-b over the pairs that the study separates"
    return f"{what}: {'; '.join(told)}." if told else ""


def _settled(it: dict[str, Any]) -> list[str]:
    parts = []
    for one in it.get("found", []):
        for own in one["sets"]:
            heads = ["loss", f"place, {one['before']} updates", f"place, {one['after']} updates", "change"]
            heads += [f"{METRICS[m].label}, {count}" for m in own["metrics"] for count in (one["before"], one["after"])]
            rows = [(r["loss"], r["was"], r["now"], r["change"], *r["scores"]) for r in own["rows"]]
            parts += [f"### {_set_name(own['name'])}", escaped(own["words"]), table(heads, rows)]
    return ["## Has it settled?", *parts] if parts else []


def _equal_time(it: dict[str, Any]) -> list[str]:
    parts = []
    for one in it.get("sets", []):
        rows = [(r["loss"], r["was"], r["now"], r["change"], *r["updates"]) for r in one["rows"]]
        heads = ["loss", "place, equal updates", "place, equal time", "change", "updates", "updates, equal time"]
        parts += [
            f"### {_set_name(one['name'])}",
            escaped(one["words"]),
            table(heads, rows),
        ]
    if it.get("times"):
        heads = [
            "loss",
            *(
                f"{head}, {kind}" if len(it["kinds"]) > 1 else head
                for kind in it["kinds"]
                for head in ("updates", "seconds", f"time × {it['reference']}", "seeds")
            ),
        ]
        parts += [
            f"### Time to a selection score of {it['goal']}",
            escaped(it["told"]),
            table(heads, [(loss, *(cell for cells in kinds for cell in cells)) for loss, kinds in it["times"]]),
        ]
    return ["## Equal time" if it.get("sets") else "## Time to a score", *parts] if parts else []


def _fitting(it: dict[str, Any], draw: Draw | None) -> list[str]:
    if not it:
        return []
    heads = ["loss", "metric", "training", "matched", "gap", "95 % interval", "change", "its interval"]
    keys = ("loss", "metric", "heard", "unheard", "gap", "interval", "change", "change_interval")
    drawn = _picture(draw, "fitting", "Loss in training and size of the weights over updates", it["picture"])
    rows = [[row[key] for key in keys] for row in it["gaps"]]
    return ["## What was learned by heart", escaped(it["words"]), table(heads, rows), escaped(it["note"]), drawn]


def _balance(it: dict[str, Any], draw: Draw | None) -> list[str]:
    """How score follows the weights of a combination, what each weighting is worth, and what a search found. The trials of each
    search are for the report alone: they would be a picture an entrant."""
    drawn = [
        _picture(draw, f"weights-{number}", f"Score over the weights of {group}", picture)
        for number, (group, picture) in enumerate(it.get("sensitivity", []), 1)
    ]
    regrets = it.get("regret", [])
    heads = ["combination", "set", "metric", "best fixed", "weighting", "mean", "regret"]
    rows = [
        tuple(row[key] for key in ("group", "test_set", "metric", "best", "name", "value", "share")) for row in regrets
    ]
    note = (
        "Regret: (best fixed − it) / (best fixed − equal), with its 95 % interval (Fieller): 0 is as good as the best fixed, 1 no "
        "better than equal, below 0 better than the best fixed; quality: the selection score."
    )
    against = "Against equal weights, and of those that learn against their own last weights, frozen; 95 %, Holm."
    curves = "What the gradient of each raw term is multiplied by, and log-variances where they are learned; mean over seeds."
    worth = [
        tuple(row[key] for key in ("pair", "test_set", "metric", "diff", "interval", "verdict"))
        for row in it.get("compared", [])
    ]
    over = _picture(draw, "weights-over-updates", "Weights of terms over updates", it.get("weights"))
    mattered = [
        (loss, trials, chosen, ", ".join(f"{name} {share}" for name, share in shares))
        for loss, trials, chosen, shares in it.get("importances", [])
    ]
    parts = [
        *map(escaped, it.get("worth", [])),
        *drawn,
        table(["pair", "set", "metric", "difference", "interval", "verdict"], worth),
        against if worth else "",
        table(heads, rows),
        note if rows else "",
        over,
        curves if over else "",
        table(["search", "trials", "chosen", "what mattered (PED-ANOVA)"], mattered),
        *(part for name, front in it.get("fronts", []) for part in _front(name, front)),
    ]
    return ["## Weights and searches", *parts] if any(parts) else []


def _front(name: str, front: dict[str, Any]) -> list[str]:
    return [
        f"### Front: {escaped(name)}",
        table(["setting", *front["heads"]], [(text, *cells) for text, cells in front["rows"]]),
    ]


def _list(sentences: list[str]) -> str:
    return "\n".join(f"- {escaped(sentence)}" for sentence in sentences)


def joined(parts: Iterable[str]) -> str:
    """Paragraphs, those without text left out."""
    return "\n\n".join(part for part in parts if part) + "\n"
