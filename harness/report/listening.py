"""The sounds of the page: for each kept test item the noisy and the clean recording and what each loss made of it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import soundfile

from harness.report import plots
from harness.report.blocks import named

if TYPE_CHECKING:
    from harness.report.runs import Results


def listening(results: Results, protocol: str, order: list[str]) -> list[dict]:
    """One dict an item: item, about (its condition), players [(label, data URI or "")], picture (data URI or "").

    order: losses, best first; each is heard through the first of its runs that kept the item. The picture shows the
    best one.
    Sounds are packed as FLAC: lossless, half the size, and played by every browser. A file that is gone is an empty
    URI.
    """
    if results.audio.empty:
        return []
    runs = named(results.runs)
    runs = runs[(runs["protocol"] == protocol) & runs["name"].isin(order)].sort_values("seed")
    audio = results.audio.merge(runs[["run_id", "name", "seed"]], on="run_id").sort_values("seed", kind="stable")
    found = []
    for item, own in audio.groupby("item", sort=True):
        first = own.drop_duplicates("kind").set_index("kind")["path"]
        paths = {kind: str(first[kind]) for kind in ("noisy", "clean") if kind in first}
        estimates = own[own["kind"] == "estimate"].drop_duplicates("name").set_index("name")["path"]
        heard = [name for name in order if name in estimates]
        players = [*paths.items(), *((name, str(estimates[name])) for name in heard)]
        triple = [paths.get("noisy"), paths.get("clean"), str(estimates[heard[0]]) if heard else None]
        found.append(
            {"item": str(item), "about": _about(results.scores, item), "best": heard[0] if heard else ""}
            | {"players": [(label, _sound(path)) for label, path in players], "picture": _picture(triple)}
        )
    return found


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as a `data:` URI of the MIME type `kind`."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _sound(path: str) -> str:
    if not Path(path).is_file():
        return ""
    samples, rate = soundfile.read(path)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC")
    return data_uri(buffer.getvalue(), "audio/flac")


def _picture(paths: list[str | None]) -> str:
    known = [path for path in paths if path and Path(path).is_file()]
    if len(known) < 3:
        return ""
    (noisy, rate), (clean, _), (estimate, _) = (soundfile.read(path) for path in known)
    return data_uri(plots.spectrogram(noisy, clean, estimate, rate), "image/png")


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
