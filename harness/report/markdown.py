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
        *(part for one in shown["ranking"]["sets"] for part in _ranking(view, one, draw)),
        *_settled(shown.get("settled", {})),
        *_equal_time(shown.get("equal_time", {})),
        "## Throughput",
        cost(shown.get("cost", {}).get("table", {})),
        *(
            _picture(draw, f"cost-{number}", f"Gain over {view.baseline} against the time of a step", drawn)
            for number, (_, drawn) in enumerate(shown.get("cost", {}).get("pictures", []), 1)
        ),
        *_fitting(shown.get("fitting", {}), draw),
        *_balance(shown.get("balance", {}), draw),
        "## How it was measured",
        escaped(" ".join(shown["method"]["measured"])),
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
        parts += [f"### {escaped(name)}", table(["loss", *found["heads"]], own)]
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


def _ranking(view: View, one: dict[str, Any], draw: Draw | None) -> list[str]:
    test_set = one["name"]
    metrics = [*view.headline, *view.others]
    rows = [
        (
            row["loss"],
            row["state"],
            row["place"],
            *(_cell(row["cells"].get(metric)) for metric in metrics),
            row["seeds"] or "–",
        )
        for row in tables.ranking_table(view.analysis, view.protocol, test_set, tuple(metrics))
    ]
    heads = ["loss", "state", "overall", *(METRICS[metric].label for metric in metrics), "seeds"]
    note = f"Mean, gain over {view.baseline}, tie letters: tied losses share one. ◇: the loss optimises this metric."
    says = f"Gain over {view.baseline} of every loss with its 95 % interval, {test_set.replace('_', ' ')} items"
    drawn = _picture(draw, f"ranking-{test_set}", says, one["picture"])
    return [f"### {_set_name(test_set)}", table(heads, rows), escaped(note), drawn]


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "–"
    return " ".join(filter(None, ("◇" if cell["target"] else "", cell["value"], cell["gain"], cell["letters"])))


def _set_name(test_set: str) -> str:
    return escaped(test_set.replace("_", " ").capitalize())


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
            *(f"{head}, {kind}" for kind in it["kinds"] for head in ("seconds", f"× {it['reference']}", "seeds")),
        ]
        parts += [
            f"### Time to a selection score of {it['goal']}",
            table(heads, [(loss, *(cell for cells in kinds for cell in cells)) for loss, kinds in it["times"]]),
        ]
    return ["## Equal time", *parts] if parts else []


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
