"""The behaviour atlas as a page: small multiples, one row a loss, one column a distortion, and a table of who minds what."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness import atlas
from harness.distortions import DISTORTIONS, Distortion
from harness.report import markdown
from harness.report.drawing import BLUE, GREY, INK, ORANGE, STYLE, short, svg
from harness.report.numbers import listed
from harness.report.page import html, write

BLIND = 0.01  # of what noise at 0 dB does to the loss: less is called blind
VALUES = (0, 1, 10, 100)  # ticks: linear up to 1, logarithmic beyond
SLOPES = (1e-2, 1, 1e2)
TOGETHER = 3  # losses in a picture that is published, so that it stays small
ZERO = 1e-4  # where a slope of 0 is drawn


def write_atlas(table: pd.DataFrame, folder: Path) -> Path:
    """Write atlas.csv and atlas.html into `folder` (made if needed). Returns the page's path. table: of `atlas.responses`."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "atlas.csv", table.to_csv(index=False))
    families = list(dict.fromkeys(table["family"]))
    page = html(
        "atlas",
        home=(folder / "index.html").exists(),
        about=atlas,
        pictures=[(name, Markup(picture(table[table["family"] == name]).decode())) for name in families],
        heads=[(d.name, level(d, d.moderate)) for d in DISTORTIONS],
        rows=minded(table),
        blind=BLIND,
    )
    return write(folder / "atlas.html", page)


def published(table: pd.DataFrame, draw: markdown.Draw) -> str:
    """The same as Markdown, with pictures for each family of losses."""
    heads = ["loss", *(f"{d.name}, {level(d, d.moderate)}" for d in DISTORTIONS)]
    rows = [(loss, *(text for text, _ in cells)) for loss, cells in minded(table)]
    parts = [
        "# What losses mind, and what they are blind to",
        f"A test prompt ({markdown.escaped(atlas.CLIP)}) is spoilt in {len(DISTORTIONS)} ways and given to every loss as the "
        f"estimate of itself. 0 is the value of the prompt itself, 1 that of speech-shaped noise at {atlas.REFERENCE_SNR:g} dB "
        f"SNR; below {BLIND} a loss is called blind.",
        markdown.code(["make atlas"]),
        markdown.table(heads, rows),
        "Below: the value as above (blue, left), and by how much it would change if the estimate moved along the gradient by the "
        "prompt's own size (orange, dashed, right).",
    ]
    for name, own in table.groupby("family", sort=False):
        parts.append(f"## {markdown.escaped(name)}")
        names = list(dict.fromkeys(own["loss"]))
        for number, first in enumerate(range(0, len(names), TOGETHER), 1):
            some = names[first : first + TOGETHER]
            drawn = Markup(picture(own[own["loss"].isin(some)]).decode())
            parts.append(f"![{markdown.escaped(listed(some))}]({draw(f'{name}-{number}', drawn)})")
    return markdown.joined(parts)


def minded(table: pd.DataFrame) -> list[tuple[str, list[tuple[str, float]]]]:
    """For each loss what it gives each distortion's moderate level: (loss, [(text, shade from 0 to 1)])."""
    rows = []
    for loss, own in table.groupby("loss", sort=False):
        at = own.set_index(["distortion", "level"])["relative"]
        values = [float(at.get((d.name, d.moderate), np.nan)) for d in DISTORTIONS]
        rows.append((str(loss), [(_told(value), float(np.clip(abs(value), 0, 1))) for value in values]))
    return rows


def _told(value: float) -> str:
    return "–" if np.isnan(value) else "blind" if abs(value) < BLIND else f"{value:.2f}".replace("-", "−")


def level(distortion: Distortion, value: float) -> str:
    """ "−18 dB below the peak", as the table's head names a level."""
    return f"{value:g} {distortion.unit}".replace("-", "−", 1)


def picture(table: pd.DataFrame) -> bytes:
    """Value (blue, solid) and slope (orange, dashed) of some losses over the levels of every distortion. SVG.

    table: loss, distortion, level, relative, slope. All panels share their two scales: `relative` on the left, linear up to 1
    and logarithmic beyond, slope on the right, logarithmic; 0 lies at the bottom of both.
    """
    names, kinds = list(dict.fromkeys(table["loss"])), list(DISTORTIONS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.7 * len(kinds) + 1.0, 1.15 * len(names) + 0.95))
        height, width = figure.get_figheight(), figure.get_figwidth()
        axes = figure.subplots(
            len(names), len(kinds), squeeze=False, sharex="col", sharey=True,
            gridspec_kw={"left": 0.55 / width, "right": 1 - 0.6 / width, "bottom": 0.5 / height, "top": 1 - 0.5 / height,
                         "hspace": 0.42, "wspace": 0.12},
        )  # fmt: skip
        for line, name in zip(axes, names, strict=True):
            own = table[table["loss"] == name]
            for ax, kind in zip(line, kinds, strict=True):
                _panel(ax, kind, own[own["distortion"] == kind.name], last=ax is line[-1])
            line[0].set_title(short(name, 40), loc="left", fontsize=9)
        for ax, kind in zip(axes[0], kinds, strict=True):
            ax.annotate(
                kind.name,
                (0.5, 1),
                (0, 18),
                "axes fraction",
                "offset points",
                ha="center",
                fontweight="bold",
                fontsize=9,
            )
        for ax, kind in zip(axes[-1], kinds, strict=True):
            ax.set_xlabel(kind.unit, fontsize=8)
        return svg(figure)


def _panel(ax: Axes, kind: Distortion, rows: pd.DataFrame, last: bool) -> None:
    place = np.arange(len(rows))  # levels stand side by side, whatever lies between them
    ax.axhline(1, color=GREY, lw=0.6, ls=":")
    ax.plot(place, rows["relative"], "o-", color=BLUE, ms=2.2, lw=1.5, clip_on=False, zorder=3)
    ax.set_yscale("symlog", linthresh=1, linscale=1.2)
    ax.set_ylim(-0.15, 300)
    ax.set_yticks(VALUES, [f"{value:g}" for value in VALUES])
    ax.minorticks_off()
    right = ax.twinx()
    right.plot(place, rows["slope"].clip(lower=ZERO), color=ORANGE, lw=1.1, ls=(0, (4, 1.5)))
    right.set_yscale("log")
    right.set_ylim(ZERO, 1e4)
    right.set_yticks(SLOPES if last else [], [f"{value:g}" for value in SLOPES] if last else [])
    right.minorticks_off()
    right.tick_params(colors=INK, labelsize=7)
    shown = place[:: max(1, -(-len(place) // 5))]  # of nine levels every other one, the ends among them
    ax.set_xticks(shown, [f"{rows['level'].iloc[k]:g}".replace("-", "−") for k in shown])
    ax.tick_params(labelsize=7)
    for each in (ax, right):
        sns.despine(ax=each, right=False)
