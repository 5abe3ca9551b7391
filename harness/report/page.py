"""Write a report: three CSV files and one HTML page that needs nothing else, on disk, on a phone and in the dark."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import pandas as pd
from markupsafe import Markup

from harness.metrics import METRICS
from harness.report import fit, plots, recognition, tables, words
from harness.report.blocks import baseline, each, named
from harness.report.listening import listening
from harness.report.overall import OVERALL
from harness.report.ranking import Analysis, analyse
from harness.report.tables import summary_table
from harness.tasks import TASKS

if TYPE_CHECKING:
    from harness.report.runs import Results

__all__ = ["summary_table", "write_report"]

TEMPLATES = Path(__file__).parent / "templates"


def write_report(results: Results, folder: Path, analysis: Analysis | None = None) -> Path:
    """Write ranking.csv, pairs.csv, throughput.csv and index.html into `folder` (made if needed). Returns the page's
    path.

    analysis: that of `analyse(results)`, if the caller has it already. Each file appears whole or not at all; the page
    comes last. Raises ValueError for two runs of one loss and seed.
    """
    analysis = analysis or analyse(results)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "ranking.csv", analysis.ranking.to_csv(index=False))
    _write(folder / "pairs.csv", tables.pairs_file(analysis).to_csv(index=False))
    _write(folder / "throughput.csv", tables.throughput_table(results).to_csv(index=False))
    return _write(folder / "index.html", render(results, analysis))


def render(results: Results, analysis: Analysis) -> str:
    """The page as one string of HTML. Names from outside are escaped: only our own pictures are marked as safe."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["letter_width"] = lambda cells: max((len(c["letters"]) for c in cells.values()), default=0)
    protocols = [] if results.runs.empty else list(dict.fromkeys(named(results.runs)["protocol"]))
    return environment.get_template("index.html.j2").render(
        sections=[_section(results, analysis, protocol) for protocol in protocols],
        throughput=_cost(results.throughput),
        gpu_measured=_has_gpu(results.throughput),
        notes=results.notes,
        metrics=METRICS,
        metric_label=plots.metric_label,
    )


def _section(results: Results, analysis: Analysis, protocol: str) -> dict:
    """All that the page says about one protocol."""
    runs = named(results.runs)
    runs = runs[runs["protocol"] == protocol]
    rows = analysis.ranking[analysis.ranking["protocol"] == protocol]
    measured = [m for m in METRICS if m in set(rows["metric"])]
    headline = tuple(m for m in words.HEADLINE if m in measured)
    others = tuple(m for m in measured if m not in words.HEADLINE)
    first = runs.iloc[0]
    losses = runs[runs["role"] != "control"]
    sets = [
        _test_set(results, analysis, protocol, str(name), headline, others)
        | {"of": words.clusters(first["task"], str(name)), "remark": words.remark(first["task"], str(name))}
        for name in dict.fromkeys(rows["test_set"])
    ]
    order = sets[0]["order"] if sets else list(dict.fromkeys(losses["name"]))
    tau = analysis.reliability[analysis.reliability["protocol"] == protocol]
    return {
        "protocol": protocol,
        "baseline": baseline(runs["name"].tolist()) or "nothing",
        "task": first["task"],
        "synthetic": words.synthetic(first["corpus"]),
        "clusters": words.clusters(first["task"]),
        "controls": TASKS[first["task"]].explained if first["task"] in TASKS else "",
        "corpus": first["corpus"],
        "model": first["model"],
        "updates": ", ".join(f"{int(u)}" for u in sorted(losses["updates"].dropna().unique())),
        "count": int(losses["name"].nunique()),
        "seeds": _range(losses.groupby("name")["seed"].nunique()),
        "devices": words.listed(sorted(runs["device"].dropna().astype(str).unique())),
        "preliminary": words.preliminary(results, analysis, protocol),
        "cautions": words.cautions(results, analysis, protocol),
        "notes": tables.reference_note(results, protocol),
        "sets": sets,
        "headline": headline,
        "others": others,
        "reliability": [
            (METRICS[r.metric].label, r.test_set, "unknown" if pd.isna(r.tau) else f"{r.tau:.2f}", r.separated, r.pairs)
            for r in each(tau[tau["metric"].isin(headline)])
        ],
        "convergence": _convergence(results, losses, order, headline),
        "gaps": fit.table(results, protocol),
        "fitting": _fitting(results, losses, order),
        "learning_rates": _learning_rates(results.tuning, protocol, order),
        "quality_cost": _quality_cost(
            results.throughput, analysis, protocol, sets[0]["name"] if sets else "", headline
        ),
        "recognition": _recognition(results, analysis, protocol, order) if first["task"] != "denoise" else {},
        "listening": listening(results, protocol, order),
        "measured": [words.MEASURED[m] for m in measured if m in words.MEASURED]
        + list(dict.fromkeys(line for one in sets for line in one["whole"].get("about", []))),
    }


def _test_set(
    results: Results, analysis: Analysis, protocol: str, name: str, headline: tuple[str, ...], others: tuple[str, ...]
) -> dict:
    order = tables.ordered(analysis, protocol, name)
    mine = [b for b in analysis.blocks if (b.protocol, b.test_set) == (protocol, name) and b.metric in headline]
    return {
        "name": name,
        "order": order,
        "answers": words.answers(analysis, protocol, name),
        "table": tables.ranking_table(analysis, protocol, name, headline),
        "more": tables.ranking_table(analysis, protocol, name, others) if others else [],
        "whole": recognition.of_set(results, protocol, name, order),
        "noise": words.noise(analysis, protocol, name),
        "identities": tables.identities_table(analysis, protocol, name),
        "judged": max((b.clusters.size - b.missing for b in mine), default=0),
        "clusters": max((b.clusters.nunique() for b in mine), default=0),
        "pairs": tables.pairs_table(analysis, protocol, name, headline),
        "picture": _ranking_picture(analysis, protocol, name, headline, order),
        "conditions": [(b.metric, tables.condition_tables(results, b, order)) for b in mine],
    }


def _ranking_picture(
    analysis: Analysis, protocol: str, test_set: str, headline: tuple[str, ...], order: list[str]
) -> Markup | None:
    key = ["protocol", "test_set", "metric", "loss"]
    ranked = analysis.ranking[analysis.ranking["rank"].notna() & (analysis.ranking["metric"] != OVERALL)]
    table = analysis.gains.merge(ranked[[*key, "target", "tie_group"]], on=key)
    table = table[(table["protocol"] == protocol) & (table["test_set"] == test_set) & table["metric"].isin(headline)]
    shown = [name for name in order if name in set(table["loss"])]
    return _svg(plots.ranking(table, shown, str(table["baseline"].iloc[0]))) if shown else None


def _convergence(results: Results, losses: pd.DataFrame, order: list[str], headline: tuple[str, ...]) -> Markup | None:
    if results.curves.empty:
        return None
    names = losses.loc[~losses["stale"], ["run_id", "name", "role"]].rename(columns={"name": "loss"})
    curves = results.curves.merge(names, on="run_id")
    curves = curves[curves["metric"].isin(headline)].dropna(subset=["value"])
    if curves.empty:
        return None
    present = set(curves["loss"])
    reference = list(dict.fromkeys(curves.loc[curves["role"] == "reference", "loss"]))
    best = [name for name in order if name in present and name not in reference]
    room = len(plots.HIGHLIGHTS) - len(reference)
    return _svg(plots.convergence(curves, best[:room] + reference))


def _fitting(results: Results, losses: pd.DataFrame, order: list[str]) -> Markup | None:
    """Loss and weights over a training, for the losses that are judged on what training hears."""
    names = losses.loc[~losses["stale"], ["run_id", "name"]].rename(columns={"name": "loss"})
    curves = results.fitting.merge(names, on="run_id")
    return (
        _svg(plots.convergence(curves, [name for name in order if name in set(curves["loss"])]))
        if len(curves)
        else None
    )


def _recognition(results: Results, analysis: Analysis, protocol: str, order: list[str]) -> dict[str, Markup]:
    return {name: _svg(drawn) for name, drawn in recognition.pictures(results, analysis, protocol, order).items()}


def _learning_rates(tuning: pd.DataFrame, protocol: str, order: list[str]) -> Markup | None:
    if tuning.empty:
        return None
    own = tuning[tuning["protocol"] == protocol]
    tuned = set(own["loss"])
    shown = [name for name in order if name in tuned] + sorted(tuned - set(order))
    return _svg(plots.learning_rates(own, shown)) if shown else None


def _quality_cost(
    throughput: pd.DataFrame, analysis: Analysis, protocol: str, test_set: str, headline: tuple[str, ...]
) -> list[tuple[str, Markup]]:
    """One picture for each place where the cost was measured: (place, picture)."""
    if throughput.empty or not headline:
        return []
    gains = analysis.gains
    gains = gains[(gains["protocol"] == protocol) & (gains["test_set"] == test_set) & (gains["metric"] == headline[0])]
    pictures = []
    for (device, threads, dtype), cost in throughput.groupby(["device", "threads", "dtype"], dropna=False, sort=True):
        points = gains.merge(cost, on="loss").dropna(subset=["gain", "step_ms"])
        if len(points) > 1:
            quality = (
                f"{plots.metric_label(headline[0])}: gain over {gains['baseline'].iloc[0] if len(gains) else 'nothing'}"
            )
            pictures.append((_place(device, threads, dtype), _svg(plots.quality_cost(points, quality))))
    return pictures


def _cost(throughput: pd.DataFrame) -> list[dict]:
    if throughput.empty:
        return []
    rows = throughput.sort_values(["device", "threads", "dtype", "step_ms"])
    form = {"loss_ms": ".2f", "ratio_to_mse": ".2f", "step_ms": ".1f", "updates_per_s": ".1f"}
    form |= {"audio_s_per_s": ".0f", "peak_mib": ".0f"}
    return [
        {key: row[key] for key in ("loss", "device", "dtype")}
        | {"threads": "–" if pd.isna(row["threads"]) else f"{int(row['threads'])}"}
        | {key: "–" if pd.isna(row[key]) else format(row[key], f) for key, f in form.items()}
        for _, row in rows.iterrows()
    ]


def _has_gpu(throughput: pd.DataFrame) -> bool:
    return not throughput.empty and bool(
        throughput["device"].astype(str).str.contains("cuda|gpu|nvidia", case=False).any()
    )


def _place(device: object, threads: object, dtype: object) -> str:
    count = "" if pd.isna(threads) else f", {int(threads)} thread{'s' * (int(threads) != 1)}"  # type: ignore[call-overload]
    return f"{device}{count}, {dtype}"


def _range(counts: pd.Series) -> str:
    low, high = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    return f"{low}" if low == high else f"{low} to {high}"


def _svg(picture: bytes) -> Markup:
    return Markup(picture.decode())


def _write(path: Path, text: str) -> Path:
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
