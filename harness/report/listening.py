"""The sounds of the page: for each kept test item the noisy and the clean recording and what each loss made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from harness.metrics import METRICS
from harness.report import sound
from harness.report.media import Clip
from harness.report.numbers import number
from harness.report.view import View

Known = dict[tuple[str, str], tuple[Clip | None, Clip | None]]  # item and kind -> its sound and its picture


def section(view: View) -> dict[str, Any]:
    """fixed: the items that every loss is heard on; worst: (loss, items) on which each did worst. An item: item, about (its
    condition), players [(label, note, sound, picture)], losses best first; sound and picture are Clips, None where the recording
    is gone.

    Each loss is heard through the first of its runs that kept the item.
    """
    if view.results.audio.empty:
        return {}
    runs = view.losses.sort_values("seed")
    audio = view.results.audio.merge(runs[["run_id", "name", "seed"]], on="run_id").sort_values("seed", kind="stable")
    scores = view.results.scores
    kept = scores["run_id"].isin(audio["run_id"]) & scores["item"].isin(audio["item"])
    scores = scores[kept].drop_duplicates(["run_id", "item"]).set_index(["run_id", "item"])
    known: Known = {}
    fixed, worst = audio[~audio["worst"].astype(bool)], audio[audio["worst"].astype(bool)]
    items = [_item(view, scores, str(item), own, known) for item, own in fixed.groupby("item", sort=True)]
    of_losses = [
        (
            name,
            [
                _item(view, scores, str(item), own, known)
                for item, own in worst[worst["name"] == name].groupby("item", sort=True)
            ],
        )
        for name in view.order
        if name in set(worst["name"])
    ]
    return {"fixed": items, "worst": of_losses, "notes": view.results.notes.get(view.protocol, [])} if items else {}


def _item(view: View, scores: pd.DataFrame, item: str, own: pd.DataFrame, known: Known) -> dict[str, Any]:
    first = own.drop_duplicates("kind").set_index("kind")["path"]
    estimates = own[own["kind"] == "estimate"].drop_duplicates("name").set_index("name")
    clean = _read(first.get("clean", ""))
    players = []
    for kind in ("noisy", "clean"):
        if kind in first:
            if (item, kind) not in known:  # the same in every run
                known[item, kind] = _heard(view, first[kind], clean)
            players.append((kind, "", *known[item, kind]))
    for name in [name for name in view.order if name in estimates.index]:
        note = _note(view, scores, str(estimates.loc[name, "run_id"]), item)
        players.append((name, note, *_heard(view, str(estimates.loc[name, "path"]), clean)))
    return {"item": item, "about": _about(scores, item), "players": players}


def _read(path: str) -> tuple[np.ndarray, int] | None:
    return soundfile.read(path) if path and Path(path).is_file() else None


def _heard(view: View, path: str, clean: tuple[np.ndarray, int] | None) -> tuple[Clip | None, Clip | None]:
    """The sound and the spectrogram of a file; without the clean clip its level is its own."""
    read = _read(path)
    if read is None:
        return None, None
    samples, rate = read
    samples = sound.matched(samples, samples if clean is None else clean[0])
    return view.media.add(sound.flac(samples, rate), "audio/flac"), view.media.add(
        sound.spectrogram(samples), "image/png"
    )


def _note(view: View, scores: pd.DataFrame, run: str, item: str) -> str:
    """What the run scores on the item by the first headline metric, with its name: "PESQ-WB 2.31"."""
    if not view.headline or (run, item) not in scores.index:
        return ""
    metric = view.headline[0]
    value: Any = scores.at[(run, item), metric]
    return f"{METRICS[metric].label} {number(metric, value)}"


def _about(scores: pd.DataFrame, item: str) -> str:
    """ "matched, anna, street, 5 dB": what is known about the item."""
    rows = scores[scores.index.get_level_values("item") == item]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    words = [str(row[c]) for c in ("test_set", "speaker", "noise") if c in rows and pd.notna(row[c])]
    if "input_snr" in rows and pd.notna(row["input_snr"]):
        words.append(f"{row['input_snr']:g} dB".replace("-", "−"))
    return ", ".join(words)
