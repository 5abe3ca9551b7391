import re

import pandas as pd
import pytest

from harness.report import cost, markdown, page
from harness.report.ranking import analyse

HOSTILE = "<script>|x|*[a](javascript:b)`_"


@pytest.fixture(scope="module")
def files(make_results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("markdown")
    results = make_results({"mse": 1.0, "si_sdr": 2.0, HOSTILE: 0.5}, seeds=2, items=6, targets={"si_sdr": ("si_sdr",)})
    results.curves = results.tuning = results.curves.iloc[:0]  # no pictures are wanted
    page.write_report(results, folder, analyse(results))
    return {path.name.split("-")[0]: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}


def test_the_index_leads_to_the_page_and_says_its_answer(files):
    assert re.search(r"\[denoise / prompts / gru\\_small\]\(denoise-prompts-gru_small-p1\.md\)", files["index.md"])
    assert "the best loss for PESQ-WB is si\\_sdr (+0." in files["index.md"]


def test_a_page_holds_the_answer_the_cautions_the_tables_and_the_cost(files):
    text = files["denoise"]
    assert "**Preliminary:** 2 seeds" in text
    assert "- The reference mse runs at its shipped learning rate" in text
    rows = [line for line in text.splitlines() if line.startswith("| si\\_sdr ")]
    assert re.match(r"\| si\\_sdr +\| finished +\| 1 +\| \d\.\d\d \+0\.\d\d ", rows[0])
    assert "◇" in rows[0]
    assert "GPU: not measured." in text
    assert "### cpu, 2 threads, float32" in files["throughput.md"]


def test_a_hostile_name_is_a_name(files):
    for text in files.values():
        assert "<script" not in text
        assert "[a](" not in text
    (row, *_) = [line for line in files["denoise"].splitlines() if line.startswith("| &lt;script>")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 9  # it adds no column


def test_a_table_of_costs_is_in_the_order_of_its_own_place_without_rows_and_columns_that_say_nothing():
    rows = [
        ("a", "cpu", 1, 9.0),
        ("b", "cpu", 1, 8.0),
        ("a", "cpu", 2, 5.0),
        ("b", "cpu", 2, 6.0),
        ("c", "cpu", 2, 4.0),
    ]
    measured = pd.DataFrame(rows, columns=["loss", "device", "threads", "step_ms"])
    measured = measured.assign(dtype="float32", loss_ms=1.0, ratio_to_mse=2.0, updates_per_s=3.0, audio_s_per_s=4.0)
    found = cost.table(cost.measured(measured.assign(peak_mib=float("nan")), "any", "mse"), "mse")
    one, two = (part for part in markdown.cost(found).split("### ") if part.startswith("cpu"))
    assert re.findall(r"^\| (\w) ", one, re.M) == ["b", "a"]
    assert re.findall(r"^\| (\w) ", two, re.M) == ["c", "a", "b"]
    assert "peak" not in one
    assert "× mse alone" in one  # of mse itself there is no row: every loss was measured beside it
    assert "2.00" in one


def test_an_empty_table_is_nothing():
    assert markdown.table(["a"], []) == ""
