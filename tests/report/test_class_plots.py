import numpy as np
import pandas as pd

from harness.report import class_plots
from tests.report.test_plots import texts

NAMES = [f"word {k}" for k in range(20)]


def test_a_confusion_matrix_names_rows_and_columns_and_prints_what_is_not_nothing():
    matrix = np.diag(np.full(20, 75.0))
    matrix[0, 1], matrix[2, 3] = 25, 0.2
    shown = texts(class_plots.confusion({"a": matrix, "b": matrix}, NAMES))
    assert [shown.count(name) for name in NAMES] == [3] * 20  # columns of both, rows of the first
    assert shown.count("75") == 40
    assert shown.count("25") == 2
    assert "0" not in shown


def test_a_class_without_items_leaves_an_empty_row():
    svg = class_plots.confusion({"a": np.array([[100.0, 0.0], [np.nan, np.nan]])}, ["yes", "no"])
    assert b"nan" not in svg.lower()
    assert texts(svg).count("100") == 1


def test_a_calibration_panel_for_each_loss():
    table = pd.DataFrame({"items": [1, 9], "confidence": [0.2, 0.9], "accuracy": [0.0, 0.8]})
    shown = texts(class_plots.calibration(dict.fromkeys("abcd", table)))
    assert all(shown.count(name) == 1 for name in "abcd")


def test_embeddings_show_every_class_of_any_panel_once_in_the_legend():
    rng = np.random.default_rng(0)
    vectors, label = rng.standard_normal((40, 8)), np.arange(40) % 20
    shown = texts(class_plots.embeddings({"a": (vectors, label), "b": (vectors[:1], label[:1])}, NAMES))
    assert all(shown.count(name) == 1 for name in NAMES)


def test_no_two_of_forty_classes_look_alike():
    looks = {(look["marker"], look["color"]) for look in map(class_plots._mark, range(42))}
    assert len(looks) == 42
