"""The atlas as a page: it needs nothing else, names stay text, and its words agree with its numbers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.distortions import DISTORTIONS
from harness.report import atlas

HOSTILE = "<script>alert(1)</script> & co"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rows = []
    for k, loss in enumerate(("si_sdr", HOSTILE)):
        for d in DISTORTIONS:
            for n, level in enumerate(d.levels):
                relative = 0.0 if loss == "si_sdr" and d.name == "gain" else 0.1 * n * (1 + k)
                row = {"loss": loss, "family": f"family {k}", "distortion": d.name, "level": level}
                rows.append(row | {"unit": d.unit, "value": relative, "loss_unit": "dB"} | {"relative": relative})
    return pd.DataFrame(rows).assign(gradient=0.1, slope=np.nan)


@pytest.fixture(scope="module")
def page(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return atlas.write_atlas(table, tmp_path_factory.mktemp("atlas"))


def test_page_and_numbers_are_written_and_need_nothing_else(table: pd.DataFrame, page: Path) -> None:
    text = page.read_text()
    outside = r"""(?:src|href)\s*=\s*["'](?!#)|url\((?!["']?#)|@import|https?://(?!www\.w3\.org)"""
    assert re.findall(outside, text) == []
    assert "<script>alert" not in text
    numbers = pd.read_csv(page.with_suffix(".csv"))
    assert numbers["relative"].tolist() == pytest.approx(table["relative"].tolist())


def test_a_loss_is_called_blind_only_where_it_hardly_answers(table: pd.DataFrame) -> None:
    told = dict(atlas.minded(table))
    names = [d.name for d in DISTORTIONS]
    assert [cell[0] for cell in told["si_sdr"]].count("blind") == 1
    assert told["si_sdr"][names.index("gain")][0] == "blind"
    clipping = DISTORTIONS[names.index("clipping")]
    place = clipping.levels.index(clipping.moderate)
    assert told[HOSTILE][names.index("clipping")] == (f"{0.2 * place:.2f}", pytest.approx(min(1, 0.2 * place)))


def test_there_is_a_picture_a_family_with_a_row_a_loss_and_a_column_a_distortion(page: Path) -> None:
    first, second = re.findall(r"<svg.*?</svg>", page.read_text(), re.DOTALL)
    for name in ("si_sdr", *(d.name for d in DISTORTIONS)):
        assert f">{name}</text>" in first
    assert "&lt;script&gt;" in second


def test_as_markdown_it_holds_the_same_table_and_a_picture_for_each_family(table: pd.DataFrame) -> None:
    drawn: dict[str, str] = {}

    def draw(name: str, picture: object) -> str:
        drawn[name] = str(picture)
        return f"pictures/{name}.svg"

    text = atlas.published(table, draw)
    (line,) = [line for line in text.splitlines() if line.startswith("| si\\_sdr")]
    assert [cell.strip() for cell in line.strip("|").split("|")][1:] == [
        c[0] for c in dict(atlas.minded(table))["si_sdr"]
    ]
    assert "<script>" not in text
    assert list(drawn) == ["family 0-1", "family 1-1"]
    assert all("<svg" in picture for picture in drawn.values())
    assert "(pictures/family 1-1.svg)" in text
