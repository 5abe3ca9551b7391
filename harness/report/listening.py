"""The sounds of the page: for each kept test item the noisy and the clean recording and what each loss made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from harness.metrics import METRICS
from harness.report import sound
from harness.report.drawing import spectrum
from harness.report.numbers import number
from harness.report.view import View


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
    fixed, worst = audio[~audio["worst"].astype(bool)], audio[audio["worst"].astype(bool)]
    items = [_item(view, scores, str(item), own) for item, own in fixed.groupby("item", sort=True)]
    of_losses = [
        (
            name,
            [
                _item(view, scores, str(item), own)
                for item, own in worst[worst["name"] == name].groupby("item", sort=True)
            ],
        )
        for name in view.order
        if name in set(worst["name"])
    ]
    return {"fixed": items, "worst": of_losses, "notes": view.results.notes.get(view.protocol, [])} if items else {}


def _item(view: View, scores: pd.DataFrame, item: str, own: pd.DataFrame) -> dict[str, Any]:
    first = own.drop_duplicates("kind").set_index("kind")["path"]
    paths = {kind: str(first[kind]) for kind in ("noisy", "clean") if kind in first}
    estimates = own[own["kind"] == "estimate"].drop_duplicates("name").set_index("name")
    heard = [name for name in view.order if name in estimates.index]
    paths |= {name: str(estimates.loc[name, "path"]) for name in heard}
    notes = {name: _note(view, scores, str(estimates.loc[name, "run_id"]), item) for name in heard}
    rate, clips = _read(paths)
    if "clean" in clips:
        clips = sound.matched(clips)
        top = float(spectrum(clips["clean"], rate).max())
    else:
        top = max((float(spectrum(clip, rate).max()) for clip in clips.values()), default=0.0)
    players: list[tuple] = []
    for label in paths:
        played = shown = None
        if label in clips:
            played = view.media.add(sound.flac(clips[label], rate), "audio/flac")
            shown = view.media.add(sound.spectrogram(clips[label], rate, top), "image/png")
        players.append((label, notes.get(label, ""), played, shown))
    return {"item": item, "about": _about(scores, item), "players": players}


def _read(paths: dict[str, str]) -> tuple[int, dict[str, np.ndarray]]:
    rate, clips = 16_000, {}
    for label, path in paths.items():
        if Path(path).is_file():
            clips[label], rate = soundfile.read(path)
    return rate, clips


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
