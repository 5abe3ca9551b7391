"""Tables of text for people: the rows that the page and the console print, formatted but without any markup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.metrics import METRICS
from harness.report.blocks import Block, each, levels, named
from harness.report.numbers import number, span
from harness.report.overall import OVERALL
from harness.report.ranking import Analysis
from harness.report.words import HEADLINE

if TYPE_CHECKING:
    from harness.report.runs import Results

THROUGHPUT = [
    "loss",
    "device",
    "threads",
    "dtype",
    "loss_ms",
    "ratio_to_mse",
    "step_ms",
    "updates_per_s",
    "audio_s_per_s",
    "peak_mib",
    "model",
    "step_ratio",
]
MOST_PAIRED = 20  # losses whose differences stand in a page
MOST_SPEAKERS = 12  # to be shown one by one
CONDITIONS = {"input_snr": "input SNR", "noise": "noise", "speaker": "speaker"}


def pairs_file(analysis: Analysis) -> pd.DataFrame:
    """Rows of `pairs.csv`: every two ranked losses, then every loss and control against the baseline.

    Holm-adjusted within each of the two families, per protocol, test set and metric.
    """
    names = {
        "loss": "a",
        "baseline": "b",
        "gain": "diff",
        "adjusted_low": "low",
        "adjusted_high": "high",
        "p_beats": "p_a_beats_b",
    }
    against = analysis.gains.drop(columns=["low", "high"]).rename(columns=names)
    parts = [table for table in (analysis.pairs, against[analysis.pairs.columns]) if len(table)]
    return pd.concat(parts, ignore_index=True) if parts else analysis.pairs


def summary_table(analysis: Analysis, protocol: str | None = None, test_set: str = "matched") -> pd.DataFrame:
    """What the console prints after a study: one row a loss or control, best overall first, all cells text.

    Columns: loss, one per measured headline metric ("2.31 +0.41 a": mean, gain over the baseline, tie letters), overall
    (place by mean rank over the referee metrics). protocol: its hash; None = the last one of the table.
    """
    ranking = analysis.ranking
    if protocol is None and len(ranking):
        protocol = ranking["protocol"].iloc[-1]
    table = ranking_table(analysis, protocol or "", test_set, HEADLINE)
    cells = [
        {"loss": row["loss"] + (f" ({row['state']})" if row["state"] not in ("finished", "control") else "")}
        | {
            METRICS[m].label: " ".join(filter(None, (c["value"], c["gain"], c["letters"])))
            for m, c in row["cells"].items()
        }
        | {"overall": row["place"]}
        for row in table
    ]
    return pd.DataFrame(cells, columns=["loss", *(METRICS[m].label for m in HEADLINE), "overall"]).dropna(
        axis="columns", how="all"
    )


def ranking_table(analysis: Analysis, protocol: str, test_set: str, metrics: tuple[str, ...]) -> list[dict]:
    """One dict a loss or control, in the order of the overall place: loss, state, seeds, params, device, kind ("loss",
    "stale", "control"), place (overall place, "" if none), mean_rank, cells: metric -> {value, gain, interval (of the mean),
    gain_interval, letters, target}. Only metrics that were measured have cells.
    """
    rows = analysis.ranking
    rows = rows[(rows["protocol"] == protocol) & (rows["test_set"] == test_set)]
    gains = analysis.gains[(analysis.gains["protocol"] == protocol) & (analysis.gains["test_set"] == test_set)]
    gained = {(row.metric, row.loss): row for row in each(gains)}
    of_loss: dict[str, dict[str, Any]] = {}
    for score in each(rows):
        of_loss.setdefault(score.loss, {})[score.metric] = score
    table = []
    for loss in ordered(analysis, protocol, test_set):
        own = of_loss[loss]
        first, overall = next(iter(own.values())), own.get(OVERALL)
        entry: dict[str, Any] = {name: getattr(first, name) for name in ("loss", "state", "seeds", "device")}
        entry["params"] = "–" if pd.isna(first.params) or first.params == 0 else f"{first.params:,}"
        entry["kind"] = first.state if first.state in ("stale", "control") else "loss"
        entry["place"] = "" if overall is None else str(overall.rank)
        entry["mean_rank"] = "" if overall is None else f"{overall.mean:.1f}"
        entry["cells"] = {}
        for metric in [m for m in metrics if m in own]:
            score, gain = own[metric], gained.get((metric, loss))
            entry["cells"][metric] = {
                "value": number(metric, score.mean),
                "gain": "" if gain is None else number(metric, gain.gain, signed=True),
                "gain_interval": "" if gain is None else span(metric, gain.low, gain.high, True),
                "interval": span(metric, score.low, score.high),
                "letters": score.tie_group,
                "target": bool(score.target),
            }
        table.append(entry)
    return table


def ordered(analysis: Analysis, protocol: str, test_set: str) -> list[str]:
    """Losses by overall place (without one, by their order on the first metric), then stale losses, then controls."""
    rows = analysis.ranking
    rows = rows[(rows["protocol"] == protocol) & (rows["test_set"] == test_set)]
    place = rows[rows["metric"] == OVERALL].set_index("loss")["mean"]
    names = list(dict.fromkeys(rows["loss"]))
    state = rows.drop_duplicates("loss").set_index("loss")["state"]
    kind = {name: {"stale": 1, "control": 2}.get(state[name], 0) for name in names}
    return sorted(names, key=lambda name: (kind[name], place.get(name, float("inf"))))


def places(analysis: Analysis, protocol: str, test_set: str) -> dict[str, int]:
    """Loss -> its place by quality: that by mean rank over the referee metrics, where no loss has one that on the first metric."""
    rows = analysis.ranking
    rows = rows[(rows["protocol"] == protocol) & (rows["test_set"] == test_set) & rows["rank"].notna()]
    judged = (
        OVERALL if (rows["metric"] == OVERALL).any() else next((m for m in HEADLINE if m in set(rows["metric"])), "")
    )
    return {str(row.loss): int(row.rank) for row in each(rows[rows["metric"] == judged])}


def heat_map(gains: pd.DataFrame, order: list[str]) -> dict[str, Any]:
    """Losses by metrics as a picture of cells: metrics, rows [(loss, cells)]; a cell is (gain as text, share of the largest gain or
    loss of its metric in 0..1, whether it is a gain, whether the loss optimises the metric), None where there is none.

    gains: loss, metric, gain, target. order: the losses from top to bottom.
    """
    metrics = [metric for metric in METRICS if metric in set(gains["metric"])]
    largest = gains["gain"].abs().groupby(gains["metric"]).max()
    known = {(row.loss, row.metric): row for row in each(gains) if not pd.isna(row.gain)}

    def cell(loss: str, metric: str) -> tuple[str, float, bool, bool] | None:
        row = known.get((loss, metric))
        if row is None:
            return None
        share = abs(row.gain) / largest[metric] if largest[metric] > 0 else 0.0
        return number(metric, row.gain, signed=True), round(float(share), 3), bool(row.gain >= 0), bool(row.target)

    return {"metrics": metrics, "rows": [(loss, [cell(loss, metric) for metric in metrics]) for loss in order]}


def pairs_table(analysis: Analysis, protocol: str, test_set: str, metrics: tuple[str, ...]) -> list[dict]:
    """Paired differences as text, with `tied` (bool): a, b, metric, diff, interval, p, wins. Of the first MOST_PAIRED losses: those
    of a hundred would make a page of ten megabytes, and `pairs.csv` has them."""
    rows = analysis.pairs
    first = ordered(analysis, protocol, test_set)[:MOST_PAIRED]
    rows = rows[rows["a"].isin(first) & rows["b"].isin(first)]
    rows = rows[(rows["protocol"] == protocol) & (rows["test_set"] == test_set) & rows["metric"].isin(metrics)]
    return [
        {"a": r.a, "b": r.b, "metric": METRICS[r.metric].label, "diff": number(r.metric, r.diff, True)}
        | {"interval": span(r.metric, r.low, r.high, True) or "unknown", "tied": not r.p_adjusted < 0.05}
        | {"p": "–" if pd.isna(r.p_adjusted) else "< .001" if r.p_adjusted < 0.001 else f"{r.p_adjusted:.3f}"}
        | {"wins": f"{100 * r.p_a_beats_b:.0f} %"}
        for r in each(rows)
    ]


def identities_table(analysis: Analysis, protocol: str, test_set: str) -> list[dict]:
    """One dict a group and headline metric: losses, metric, pair, diff, interval, ties."""
    table = analysis.identities
    table = table[(table["protocol"] == protocol) & (table["test_set"] == test_set) & table["metric"].isin(HEADLINE)]
    return [
        {"losses": row.losses, "metric": METRICS[row.metric].label, "pair": f"{row.a} − {row.b}", "ties": row.ties}
        | {"diff": number(row.metric, row.diff, True)}
        | {"interval": span(row.metric, row.low, row.high, True) or "unknown"}
        for row in each(table)
    ]


def condition_tables(results: Results, block: Block, order: list[str]) -> list[dict]:
    """Mean gain over the baseline by input SNR, by noise and by speaker: {title, columns, rows: [(loss, cells)]}.

    Speakers are fixed and few: shown one by one, not sampled. Conditions with a single value say nothing and are left
    out.
    """
    if not block.baseline or not block.losses:
        return []
    # Another protocol may have other items of the same names.
    own = results.scores["run_id"].isin(results.runs.loc[results.runs["protocol"] == block.protocol, "run_id"])
    items = results.scores[own].drop_duplicates("item").set_index("item")
    tables = []
    for column, title in CONDITIONS.items():
        kinds = items[column].reindex(block.clusters.index).nunique() if column in items else 0
        if kinds < 2 or (column == "speaker" and kinds > MOST_SPEAKERS):
            continue
        values = items[column]
        if column == "input_snr":
            values = levels(values)
        rows, columns = [], None
        for name in [name for name in order if name in block.losses]:
            gain = pd.Series(block.difference(name, block.baseline).mean(axis=0), block.losses[name].columns)
            by = gain.groupby(values.reindex(gain.index)).mean()
            columns = list(by.index)
            rows.append((name, [number(block.metric, value, signed=True) for value in by]))
        heads = [f"{c:g} dB".replace("-", "−") if column == "input_snr" else str(c) for c in columns or []]
        tables.append({"title": title, "columns": heads, "rows": rows})
    return tables


def throughput_table(results: Results) -> pd.DataFrame:
    """`throughput.csv`: the cost of each loss, one row per device, threads and dtype. Columns THROUGHPUT."""
    return results.throughput.reindex(columns=THROUGHPUT).sort_values(["device", "threads", "dtype", "step_ms"])


def reference_note(results: Results, protocol: str) -> dict[str, str]:
    """Loss -> what to print beside the reference: "reference", or "reference, not retuned" at its shipped rate."""
    runs = named(results.runs)
    rows = runs[(runs["protocol"] == protocol) & (runs["role"] == "reference")]
    shipped = (rows["tuning"] == "shipped").groupby(rows["name"]).any()
    return {str(name): "reference, not retuned" if flag else "reference" for name, flag in shipped.items()}
