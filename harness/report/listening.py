"""The sounds of the page: for each kept test item the noisy and the clean recording and what each loss made of it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import soundfile

from harness.report.media import Clip
from harness.report.view import View


def section(view: View) -> dict[str, Any]:
    """listened: one dict an item: item, about (its condition), players [(label, Clip or None)].

    Losses best first; each is heard through the first of its runs that kept the item. Sounds are packed as FLAC: lossless,
    half the size, and played by every browser. A file that is gone is None.
    """
    if view.results.audio.empty:
        return {}
    runs = view.losses.sort_values("seed")
    audio = view.results.audio.merge(runs[["run_id", "name", "seed"]], on="run_id").sort_values("seed", kind="stable")
    found = []
    for item, own in audio.groupby("item", sort=True):
        first = own.drop_duplicates("kind").set_index("kind")["path"]
        paths = {kind: str(first[kind]) for kind in ("noisy", "clean") if kind in first}
        estimates = own[own["kind"] == "estimate"].drop_duplicates("name").set_index("name")["path"]
        players = [*paths.items(), *((name, str(estimates[name])) for name in view.order if name in estimates)]
        clips = [(label, _sound(view, path)) for label, path in players]
        found.append({"item": str(item), "about": _about(view.results.scores, item), "players": clips})
    return {"listened": found} if found else {}


def _sound(view: View, path: str) -> Clip | None:
    if not Path(path).is_file():
        return None
    samples, rate = soundfile.read(path)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC")
    return view.media.add(buffer.getvalue(), "audio/flac")


def _about(scores: pd.DataFrame, item: object) -> str:
    """ "matched, anna, street, 5 dB": what is known about the item."""
    rows = scores[scores["item"] == item] if not scores.empty else scores
    if rows.empty:
        return ""
    row = rows.iloc[0]
    words = [str(row[c]) for c in ("test_set", "speaker", "noise") if c in rows and pd.notna(row[c])]
    if "input_snr" in rows and pd.notna(row["input_snr"]):
        words.append(f"{row['input_snr']:g} dB".replace("-", "−"))
    return ", ".join(words)
