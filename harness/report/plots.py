"""Pictures of a report: numbers in, bytes of an SVG or a PNG out. Nothing is estimated here.

Every difference in colour is also one in shape or place, so that a picture survives black-and-white print.
"""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from harness.metrics import METRICS
from harness.report.blocks import each
from harness.report.drawing import (
    BLUE,
    DASHES,
    GREY,
    HIGHLIGHTS,
    INK,
    RED,
    STYLE,
    pareto,
    short,
    spread,
    svg,
    trimmed,
)


def metric_label(metric: str) -> str:
    """ "PESQ-WB", "SI-SDR (dB)": as axes and tables name a metric. A name that is no metric's stands as it is."""
    if metric not in METRICS:
        return metric
    known = METRICS[metric]
    return f"{known.label} ({known.unit})" if known.unit == "dB" else known.label


def ranking(table: pd.DataFrame, order: list[str], baseline: str = "unprocessed") -> bytes:
    """Improvement over the baseline with its interval, one panel a metric, one row a loss, best first. SVG.

    table: loss, metric, gain, low, high (in the metric's unit; low and high NaN = not known), target (bool: the loss
    optimises the metric), tie_group (letters). order: the losses from top to bottom.
    """
    metrics = list(dict.fromkeys(table["metric"]))
    longest = max(len(short(name)) for name in order)
    with mpl.rc_context(STYLE):
        height = 0.9 + 0.23 * len(order)
        figure = Figure(figsize=(0.085 * longest + 2.1 * len(metrics) + 0.6, height))
        axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for ax, metric in zip(axes, metrics, strict=True):
            rows = table[table["metric"] == metric].set_index("loss").reindex(order)
            best = set(rows.loc[rows["gain"].idxmax(), "tie_group"]) if rows["gain"].notna().any() else set()
            y = np.arange(len(order))
            ax.barh(y[1::2], 1, 1, 0, transform=ax.get_yaxis_transform(), color=GREY, alpha=0.1, lw=0)
            known = rows["gain"].notna().to_numpy()
            tied = np.array([bool(best & set(text)) if isinstance(text, str) else False for text in rows["tie_group"]])
            target = rows["target"].eq(True).to_numpy()
            # A few calls for all rows: with a hundred losses one for each would take half a minute.
            for colour, group in ((GREY, known & ~tied), (BLUE, known & tied)):
                ax.hlines(y[group], rows["low"][group], rows["high"][group], color=colour, lw=1.6)
                for mark, fill, own in (("o", colour, group & ~target), ("D", "none", group & target)):
                    ax.plot(rows["gain"][own], y[own], mark, ms=5, color=colour, mfc=fill, mew=1.3)
            for place in y[known]:
                text = rows["tie_group"].iloc[place]
                text = text if len(text) <= 6 else text[:5] + "…"
                ax.text(1.02, place, text, transform=ax.get_yaxis_transform(), va="center", fontsize=7.5)
            ax.axvline(0, color=INK, lw=0.8)
            ax.set_title(metric_label(metric))
            ax.margins(x=0.08)
            ax.grid(axis="x")
            ax.tick_params(axis="y", length=0)
            sns.despine(ax=ax, left=True)
        axes[0].set_yticks(range(len(order)), [short(name) for name in order])
        axes[0].set_ylim(len(order) - 0.5, -0.5)
        figure.supxlabel(f"improvement over {baseline}, 95 % interval", fontsize=8.5)
        figure.tight_layout(w_pad=1.6)
        return svg(figure)


def convergence(curves: pd.DataFrame, highlight: list[str], along: str = "updates") -> bytes:
    """Validation metrics, or other curves of a training, over updates, mean over seeds; a few losses in colour, all others
    as grey context. SVG.

    curves: loss, metric, step (update, or what `along` says), value, and seconds where they are drawn along "seconds": of equal
    steps the mean over seeds. highlight: at most 6 losses, the best first; they get
    the legend.
    """
    metrics = list(dict.fromkeys(curves["metric"]))
    highlight = highlight[: len(HIGHLIGHTS)]
    place = "seconds" if along == "seconds" else "step"
    mean = (
        curves.assign(at=curves[place].astype(float))
        .groupby(["metric", "loss", "step"], sort=False)[["at", "value"]]
        .mean()
    )
    columns = min(2, len(metrics))
    lines = -(-len(metrics) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2 * columns + 0.4, 2.5 * lines + 0.7))
        axes = figure.subplots(lines, columns, squeeze=False, sharex=True).ravel()
        for ax, metric in zip(axes, metrics, strict=False):
            of_metric = mean.loc[metric]
            losses = list(of_metric.index.unique("loss"))
            for loss in [name for name in losses if name not in highlight]:
                ax.plot(*_line(of_metric, loss), color=GREY, lw=0.9, alpha=0.55)
            for k in reversed(range(len(highlight))):
                if highlight[k] in losses:
                    ax.plot(
                        *_line(of_metric, highlight[k]),
                        color=HIGHLIGHTS[k],
                        ls=DASHES[k],
                        lw=1.8,
                        label=short(highlight[k]),
                    )
            ax.set_title(metric_label(metric), loc="left")
            ax.grid(axis="y")
            sns.despine(ax=ax)
        for ax in trimmed(axes, len(metrics), columns):
            ax.set_xlabel(along)
            if place == "step" and curves["step"].nunique() <= 6:
                ax.set_xticks(sorted(curves["step"].unique()))
        handles = {
            label: h for ax in axes[: len(metrics)] for h, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        shown = [short(name) for name in highlight if short(name) in handles]
        figure.tight_layout(rect=(0, 0.35 / figure.get_figheight(), 1, 1))
        keys = [handles[name] for name in shown]
        figure.legend(keys, shown, loc="lower center", ncols=min(3, max(1, len(shown))), fontsize=8, handlelength=3.2)
        return svg(figure)


def _line(table: pd.DataFrame, loss: str) -> tuple[np.ndarray, np.ndarray]:
    own: pd.DataFrame = table[table.index.get_level_values("loss") == loss].sort_values("at")
    return own["at"].to_numpy(), own["value"].to_numpy()


def learning_rates(tuning: pd.DataFrame, order: list[str]) -> bytes:
    """Selection score over learning rate, one small panel a loss, the chosen rate circled, diverged rates crossed. SVG.

    tuning: loss, lr, score (NaN = diverged), chosen (bool), searched (bool, may be left out). order: the losses in reading order.
    All panels lie in one pair of axes, each a unit square of its own, on one scale: a hundred pairs would take a minute to draw.
    """
    columns = min(5, len(order))
    lines = -(-len(order) // columns)
    tuning = tuning[tuning["loss"].isin(order)].assign(
        score=lambda rows: rows["score"].astype(float)
    )  # None: none finished
    known, rates = tuning["score"].dropna(), np.log10(tuning["lr"].astype(float))
    low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
    span = (high - low) or 1.0
    x = pd.Series(0.1 + 0.8 * (rates - rates.min()) / ((rates.max() - rates.min()) or 1.0), tuning.index)
    y = (0.18 + 0.72 * (tuning["score"] - low) / span).fillna(0.07)  # diverged ones lie below all others
    place = tuning["loss"].map({loss: k for k, loss in enumerate(order)})
    spots = tuning.assign(x=x + 1.15 * (place % columns), y=y - 1.45 * (place // columns)).sort_values("lr")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.85 * columns + 0.5, 1.35 * lines + 0.5))
        ax = figure.subplots()
        for k, loss in enumerate(order):
            left, bottom = 1.15 * (k % columns), -1.45 * (k // columns)
            own = spots[(spots["loss"] == loss) & spots["score"].notna()]
            searched = "searched" in own and own["searched"].any()  # whose draws differ in more than the rate
            ax.plot(own["x"], own["y"], "o" if searched else "o-", color=GREY, ms=3, lw=1.1)
            ax.plot([left, left, left + 1], [bottom + 1, bottom, bottom], color=GREY, lw=0.6)
            ax.text(left + 0.5, bottom + 1.04, short(loss, 24), fontsize=7.5, ha="center", va="bottom")
        chosen, lost = spots[spots["chosen"].astype(bool)], spots[spots["score"].isna()]
        ax.plot(chosen["x"], chosen["y"], "o", color=BLUE, ms=6.5, mfc="none", mew=1.6)
        ax.plot(lost["x"], lost["y"], "x", color=RED, ms=5, mew=1.4)
        for k in range(max(0, len(order) - columns), len(order)):
            for rate in sorted({rates.min(), rates.max()}):
                at = 1.15 * (k % columns) + 0.1 + 0.8 * (rate - rates.min()) / ((rates.max() - rates.min()) or 1.0)
                ax.text(
                    at,
                    -1.45 * (k // columns) - 0.06,
                    f"{10**rate:.0e}".replace("e-0", "e-"),
                    fontsize=7,
                    ha="center",
                    va="top",
                )
        for line in range(lines if len(known) else 0):
            for value in sorted({low, high}):
                at = 0.18 + 0.72 * (value - low) / span - 1.45 * line
                ax.text(-0.04, at, f"{value:.2f}".replace("-", "−"), fontsize=7, ha="right", va="center")
        ax.set(
            xlim=(-0.3, 1.15 * columns - 0.15),
            ylim=(-1.45 * (lines - 1) - 0.3, 1.3),
            xlabel="learning rate",
            ylabel="selection score",
        )
        ax.spines[:].set_visible(False)
        ax.set(xticks=[], yticks=[])
        return svg(figure, tight=True)


def quality_cost(points: pd.DataFrame, quality: str) -> bytes:
    """What a loss brings against what it costs, with the Pareto front (nothing is both cheaper and better). SVG.

    points: loss, step_ms (one training step), gain. quality: label of the gain. Names stand in a column on the right,
    in the order of the gain, each tied to its point by a thin line: they cannot overlap, however close the points are.
    """
    points = points.sort_values("gain", ascending=False, kind="stable").reset_index(drop=True)
    front = pareto(points["step_ms"], points["gain"])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.2, max(3.6, 0.19 * len(points) + 1.0)))
        ax: Axes = figure.subplots()
        best = points[front].sort_values("step_ms")
        ax.plot(best["step_ms"], best["gain"], drawstyle="steps-post", color=BLUE, lw=1.3, alpha=0.7)
        ax.plot(points.loc[~front, "step_ms"], points.loc[~front, "gain"], "o", color=GREY, ms=5)
        ax.plot(best["step_ms"], best["gain"], "D", color=BLUE, ms=5.5)
        if points["step_ms"].max() > 4 * points["step_ms"].min() > 0:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_formatter("")
        ax.margins(0.06)
        low, high = ax.get_ylim()
        places = spread(((points["gain"] - low) / (high - low)).to_numpy(), 0.17 / (0.8 * figure.get_figheight()))
        for row, on_front, y in zip(each(points), front, places, strict=True):
            ax.annotate(
                short(row.loss),
                (row.step_ms, row.gain),
                xytext=(1.07, y),
                textcoords="axes fraction",
                va="center",
                fontsize=8,
                fontweight="bold" if on_front else "normal",
                arrowprops={
                    "arrowstyle": "-",
                    "color": BLUE if on_front else GREY,
                    "lw": 0.6,
                    "alpha": 0.55,
                    "shrinkB": 3,
                },
            )
        ax.set_xlabel("one training step (ms)")
        ax.set_ylabel(quality)
        ax.grid()
        sns.despine(ax=ax)
        return svg(figure, tight=True)


def spectrogram(noisy: ArrayLike, clean: ArrayLike, estimate: ArrayLike, sample_rate: int) -> bytes:
    """Three log-magnitude spectrograms side by side on one colour scale of 70 dB below the loudest point. PNG.

    noisy, clean, estimate: (samples,), any length from one sample on, silence included.
    """
    panels = {"noisy": noisy, "clean": clean, "estimate": estimate}
    powers = {name: _power(np.asarray(x, dtype=float).ravel(), sample_rate) for name, x in panels.items()}
    top = max(float(p.max()) for p in powers.values())
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.5), facecolor="white")
        # Placed by hand: a layout engine draws everything twice, and every trial pays for this picture.
        axes = figure.subplots(
            1, 4, width_ratios=[1, 1, 1, 0.04], gridspec_kw={"left": 0.05, "right": 0.93, "bottom": 0.18, "top": 0.88}
        )
        scale = axes[3]
        axes = axes[:3]
        for ax, (name, shown) in zip(axes, powers.items(), strict=True):
            seconds = np.size(panels[name]) / sample_rate
            extent = (0, seconds, 0, sample_rate / 2000)
            image = ax.imshow(
                shown, origin="lower", aspect="auto", cmap="magma", vmin=top - 70, vmax=top, extent=extent
            )
            ax.set_title(name)
            ax.set_xlabel("s")
            ax.tick_params(labelleft=ax is axes[0])
        axes[0].set_ylabel("kHz")
        figure.colorbar(image, cax=scale, label="dB")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80)
        return buffer.getvalue()


def _power(x: np.ndarray, sample_rate: int) -> np.ndarray:
    """(bins, frames) power in dB of 32 ms Hann frames with 8 ms hop; a shorter clip is padded to one frame."""
    size, hop = round(0.032 * sample_rate), round(0.008 * sample_rate)
    x = np.pad(x, (0, max(0, size - len(x))))
    frames = np.lib.stride_tricks.sliding_window_view(x, size)[::hop] * np.hanning(size)
    return 10 * np.log10(np.abs(np.fft.rfft(frames, axis=-1)).T ** 2 + 1e-10)
