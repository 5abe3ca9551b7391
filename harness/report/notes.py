"""The ranking so far in Markdown, for MLflow's UI: a description of each experiment and of each loss's parent run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.metrics import METRICS
from harness.report.blocks import baseline, named
from harness.report.ranking import Analysis
from harness.report.tables import ranking_table
from harness.report.words import HEADLINE, preliminary

if TYPE_CHECKING:
    from harness.report.runs import Results

TEST_SET = "matched"
ROWS = 12  # of a ranking in an experiment's description: the whole of it is in the report
PROTOCOLS = 4  # in an experiment's description, the newest first

Notes = tuple[dict[str, str], dict[tuple[str, ...], str]]


def notes(results: Results, analysis: Analysis) -> Notes:
    """Descriptions of experiments, by their names, and of parent runs, by protocol, loss and weighting."""
    experiments: dict[str, list[str]] = {}
    parents: dict[tuple[str, ...], str] = {}
    runs = named(results.runs) if len(results.runs) else results.runs
    for protocol, own in runs.groupby("protocol", sort=False):
        rows, first = ranking_table(analysis, str(protocol), TEST_SET, HEADLINE), own.iloc[0]
        if not rows:
            continue
        legend = _legend(baseline(own["name"].tolist()), preliminary(results, analysis, str(protocol)))
        title = f"### {first['corpus']} · {first['model']} · protocol `{protocol}`"
        experiments.setdefault(str(first["task"]), []).append(f"{title}\n\n{_table(rows[:ROWS])}\n\n{legend}")
        losses = [row["loss"] for row in rows if row["kind"] == "loss"]
        by_name = {row["loss"]: row for row in rows}
        for name, loss, weighting in own[["name", "loss", "weighting"]].drop_duplicates().itertuples(index=False):
            if name not in by_name:
                continue
            place = by_name[name]["place"]
            place = f", place {place} of {len(losses)}" if place else ""
            text = f"### {_code(name)}{place}\n\n{_table([by_name[name]])}\n\n{legend}"
            parents[str(protocol), str(loss), str(weighting)] = f"{text}\n\nThe order: {', '.join(map(_code, losses))}."
    told = {task: "\n\n".join(reversed(parts[-PROTOCOLS:])) for task, parts in experiments.items()}
    return told, parents


def _legend(control: str, reasons: list[str]) -> str:
    gain = f", gain over {control}" if control else ""
    few = f" **Preliminary**: {'; '.join(reasons)}." if reasons else ""
    return f"Mean on {TEST_SET} test items{gain}, tie letters (losses that share one are tied).{few} `make report` has it all."


def _table(rows: list[dict]) -> str:
    """Rows of `ranking_table` in Markdown."""
    metrics = [name for name in HEADLINE if any(name in row["cells"] for row in rows)]
    lines = ["| loss | overall | " + " | ".join(METRICS[name].label for name in metrics) + " |"]
    lines.append("|---|---|" + "---|" * len(metrics))
    for row in rows:
        cells = [row["cells"].get(name, {}) for name in metrics]
        told = [" ".join(filter(None, (c.get("value"), c.get("gain"), c.get("letters")))) or "–" for c in cells]
        state = f" ({row['state']})" if row["state"] not in ("finished", "control") else ""
        lines.append("| " + " | ".join([f"{_code(row['loss'])}{state}", row["place"] or "–", *told]) + " |")
    return "\n".join(lines)


def _code(name: str) -> str:
    """A name as it stands: stars and underscores would be Markdown, and a bar would end the cell."""
    return f"`{name}`".replace("|", "\\|")
