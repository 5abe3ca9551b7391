import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from harness.report import drawing, plots

TEXT = "{http://www.w3.org/2000/svg}text"


def texts(svg):
    return ["".join(node.itertext()) for node in ET.fromstring(svg.replace(b"xlink:", b"")).iter(TEXT)]


def ranking_table(names, metrics=("pesq_wb", "estoi")):
    rows = [
        {"loss": n, "metric": m, "gain": 0.1 * i, "low": 0.1 * i - 0.05, "high": 0.1 * i + 0.05}
        | {"target": i == 1, "tie_group": "abcdefghij" if i == 0 else "a"}
        for i, n in enumerate(names)
        for m in metrics
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("count", [1, 40])
def test_ranking_names_every_loss_once(count):
    names = [f"loss_{i:02d}" for i in range(count)]
    shown = texts(plots.ranking(ranking_table(names), names))
    assert all(shown.count(name) == 1 for name in names)
    assert "PESQ-WB" in shown
    assert "abcde…" in shown


def test_ranking_draws_means_without_intervals():
    table = ranking_table(["mse", "b"]).assign(low=np.nan, high=np.nan)
    assert b"NaN" not in plots.ranking(table, ["mse", "b"])


def test_names_are_text_never_markup_and_never_mathematics():
    name = "<script>alert(1)</script> $x_1$"
    for svg in (
        plots.ranking(ranking_table([name]), [name]),
        plots.quality_cost(pd.DataFrame({"loss": [name], "step_ms": [1.0], "gain": [0.1]}), "gain"),
    ):
        assert b"<script" not in svg
        assert any(text.startswith("<script>alert") for text in texts(svg))


def test_svgs_take_the_colour_of_the_page_and_equal_numbers_give_equal_bytes():
    one, other = (plots.ranking(ranking_table(["mse"]), ["mse"]) for _ in range(2))
    assert one == other
    assert b"currentColor" in one
    assert one.startswith(b"<svg")


def test_a_picture_in_a_file_of_its_own_has_shorter_places_and_the_same_words():
    name = "si_sdr + 0.316*pmsqe"
    drawn = plots.quality_cost(
        pd.DataFrame({"loss": [name, "b"], "step_ms": [1.0, 1.5], "gain": [0.025, 0.0125]}), "gain"
    )
    alone = drawing.standalone(drawn.decode())
    assert texts(alone.encode()) == texts(drawn)
    assert name in texts(drawn)
    assert re.search(r' d="[^"]*\.\d{3}', drawn.decode())
    assert not re.search(r' d="[^"]*\.\d{3}', alone)


def test_convergence_highlights_some_and_keeps_the_others_as_context():
    names = [f"loss_{i}" for i in range(9)]
    curves = pd.DataFrame([(n, "pesq_wb", s, s * i) for i, n in enumerate(names) for s in (0, 100)])
    curves.columns = ["loss", "metric", "step", "value"]
    shown = texts(plots.convergence(curves, names[:3]))
    assert [n for n in names if n in shown] == names[:3]


def test_learning_rates_show_every_loss_even_where_all_trials_diverged():
    tuning = pd.DataFrame({"loss": ["a", "a", "b"], "lr": [1e-4, 1e-3, 1e-3], "chosen": [True, False, False]})
    tuning["score"] = [0.1, np.nan, np.nan]
    shown = texts(plots.learning_rates(tuning, ["a", "b"]))
    assert {"a", "b", "1e-3"} <= set(shown)
    assert plots.learning_rates(tuning.assign(score=None), ["a", "b"])


def test_pareto_keeps_what_nothing_beats_on_both_counts():
    assert drawing.pareto([1, 2, 3, 2], [1, 3, 2, 3]).tolist() == [True, True, False, True]


def test_labels_are_spread_so_that_none_overlap():
    wanted = np.sort(np.random.default_rng(0).random(40) ** 3)[::-1]
    places = drawing.spread(wanted, 0.03)
    assert (-np.diff(places) >= 0.03 - 1e-9).all()
    assert drawing.spread(np.array([0.9, 0.1]), 0.03) == pytest.approx([0.9, 0.1])


@pytest.mark.parametrize("samples", [1, 100, 16_000])
def test_spectrogram_is_a_png_for_any_length_and_for_silence(samples):
    png = plots.spectrogram(np.zeros(samples), np.zeros(samples), np.ones(samples), 16_000)
    assert png[:8] == b"\x89PNG\r\n\x1a\n"


def test_spectrogram_shows_low_frequencies_at_the_bottom():
    tone = np.sin(2 * np.pi * 500 * np.arange(16_000) / 16_000)
    image = imread(io.BytesIO(plots.spectrogram(tone, tone, tone, 16_000)))[..., :3].sum(-1)
    panel = image[32:165, 40:215]  # inside the first panel
    assert panel[-20:].mean() > panel[:20].mean() + 0.1
