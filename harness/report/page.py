"""Write a report: an index, one page a protocol and one of throughput, each as HTML and as Markdown, and the CSV files.

Pages need nothing else, on disk, on a phone and in the dark. Names from outside are escaped everywhere: only pictures of our
own stand in a page as they are.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup

from harness.metrics import METRICS
from harness.report import cost, equal_time, listening, markdown, plots, regret, search, sections, settled, tables
from harness.report.ranking import Analysis, analyse
from harness.report.tables import summary_table
from harness.report.view import View

if TYPE_CHECKING:
    from harness.report.runs import Results

__all__ = ["summary_table", "write_report"]

TEMPLATES = Path(__file__).parent / "templates"


class Elsewhere(NamedTuple):
    """A page of the same folder that another command makes. what: a sentence; command: the one that makes it."""

    file: str
    title: str
    what: str
    command: str


ELSEWHERE = (
    Elsewhere(
        "atlas.html",
        "What each loss minds",
        "Every loss of a waveform as a prompt is spoilt by noise, gain, delay and more: what it answers, what it is blind to.",
        "make atlas",
    ),
    Elsewhere(
        "listen.html",
        "Your own recording",
        "One recording through the model of every confirmed loss, to listen to and to see.",
        "harness listen RECORDING",
    ),
)


class Section(NamedTuple):
    """One of a protocol's page. Its template is `<name>.html.j2`, which finds what `show` returns in `it`."""

    name: str
    title: str
    show: Callable[[View], dict[str, Any]]


class Page(NamedTuple):
    """A protocol's page before it is written. sections: those that have something to show, with what they show."""

    view: View
    about: dict[str, Any]
    answer: dict[str, Any]
    sections: list[tuple[Section, dict[str, Any]]]


SECTIONS = (
    Section("ranking", "Ranking", sections.ranking),
    Section("cost", "Quality and throughput", cost.section),
    Section("settled", "Has it settled?", settled.section),
    Section("equal_time", "Equal time", equal_time.section),
    Section("recognition", "What was recognised", sections.recognised),
    Section("listening", "Listen", listening.section),
    Section("convergence", "Convergence", sections.convergence),
    Section("fitting", "What was learned by heart", sections.fitting),
    Section("learning_rates", "Learning rate", sections.learning_rates),
    Section("balance", "Weights and searches", search.section),
    Section("method", "How it was measured", sections.method),
    Section("recordings", "Recordings", sections.recordings),
)


def write_report(results: Results, folder: Path, analysis: Analysis | None = None) -> Path:
    """Write the index, throughput, a page a protocol (each .html and .md), ranking.csv, pairs.csv, throughput.csv, and
    equal_time.csv and regret.csv where there is any, into `folder` (made if needed). Returns the path of index.html. Pages that
    other commands make are kept; where one is not made yet, a page in its place tells how.

    analysis: that of `analyse(results)`, if the caller has it already. Each file appears whole or not at all; the index
    comes last. Raises ValueError for two runs of one loss and seed.
    """
    analysis = analysis or analyse(results)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "ranking.csv", analysis.ranking.to_csv(index=False))
    write(folder / "pairs.csv", tables.pairs_file(analysis).to_csv(index=False))
    write(folder / "throughput.csv", tables.throughput_table(results).to_csv(index=False))
    timed = analyse(results.equal_time) if results.equal_time is not None else None
    if timed is not None:
        write(folder / "equal_time.csv", timed.ranking.to_csv(index=False))
    pages = pages_of(results, analysis, timed)
    for page in pages:
        page.view.media.place(folder / page.view.stem)
        write(folder / f"{page.view.stem}.html", html("protocol", page=page))
        write(folder / f"{page.view.stem}.md", markdown.protocol(page))
    regrets = [regret.table(page.view, search.balances(page.view)) for page in pages]
    if any(map(len, regrets)):
        write(folder / "regret.csv", pd.concat([rows for rows in regrets if len(rows)]).to_csv(index=False))
    addresses = {page.view.protocol: (page.view.heading, f"{page.view.stem}.html") for page in pages}
    models = cost.models(results, analysis, addresses)
    write(folder / "throughput.html", html("throughput", models=models))
    write(folder / "throughput.md", markdown.throughput(models))
    write(folder / "index.md", markdown.index(pages))
    for other in ELSEWHERE:
        if not (folder / other.file).exists():
            write(folder / other.file, html("elsewhere", other=other))
    return write(folder / "index.html", html("index", pages=pages, measured=bool(models)))


def render(results: Results, analysis: Analysis, protocol: str | None = None) -> str:
    """The page of a protocol (the first, if none is named) as one string of HTML; the index where there is none."""
    timed = analyse(results.equal_time) if results.equal_time is not None else None
    pages = [page for page in pages_of(results, analysis, timed) if protocol in (None, page.view.protocol)]
    if not pages:
        return html("index", pages=[], measured=not results.throughput.empty)
    pages[0].view.media.place()
    return html("protocol", page=pages[0])


def pages_of(results: Results, analysis: Analysis, timed: Analysis | None) -> list[Page]:
    """The pages of all protocols. timed: the analysis of `results.equal_time`, where there is one."""
    protocols = [] if results.runs.empty else list(dict.fromkeys(results.runs["protocol"]))
    pages = []
    for protocol in protocols:
        view = View(results, analysis, str(protocol), timed)
        shown = [(section, it) for section in SECTIONS if (it := section.show(view))]
        pages.append(Page(view, sections.about(view), sections.answer(view), shown))
    return pages


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["letter_width"] = lambda cells: max((len(c["letters"]) for c in cells.values()), default=0)
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "metrics": METRICS,
        "metric_label": plots.metric_label,
        "elsewhere": ELSEWHERE,
        "script": Markup(script),
        "script_hash": f"sha256-{digest}",
    }
    return environment


def html(template: str, /, **given: Any) -> str:
    """A page of a template, which finds what is given by its names."""
    return _environment().get_template(f"{template}.html.j2").render(**given)


def write(path: Path, text: str) -> Path:
    """Write beside, then rename: a reader never sees half a file, and a crash leaves the old one."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", text=True)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
