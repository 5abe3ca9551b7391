import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from harness import gate
from harness.data import corpora

CARD = corpora.card("voicebank_demand").model_copy(update={"expected": {"test": 4}})
PUBLISHED = {"pesq_wb": 1.97, "stoi": 0.921, "si_sdr": 8.45}


class Scores:
    """Stands for a scorer: gives the same means, spread over the pairs; counts how often it is asked."""

    def __init__(self, **changed: float) -> None:
        self.means, self.asked = PUBLISHED | changed, []

    def __call__(self, noisy, clean, wanted):
        self.asked.append(wanted[0])
        spread = np.linspace(-1, 1, len(noisy))
        return [
            ({name: self.means[name] + step for name in names}, []) for names, step in zip(wanted, spread, strict=True)
        ]


@pytest.fixture
def bank(tmp_path: Path):
    clips = pd.DataFrame(
        {"clip": [f"testset/{k}" for k in range(4)] + ["trainset_28spk/0"], "split": ["test"] * 4 + ["train"]}
    )
    return SimpleNamespace(card=CARD, clips=clips, folder=tmp_path, clip=lambda name, noisy: np.zeros(10))


def test_a_gate_that_holds_says_of_how_many_pairs(bank) -> None:
    rows = gate.measured(bank, Scores())
    assert [row.holds for row in rows] == [True] * 3
    assert gate.sentence(rows) == (
        "Gate zero holds: the unprocessed test set of 4 pairs has PESQ-WB 1.970, must be 1.97 ± 0.02: holds; "
        "STOI 0.921, must be 0.921 ± 0.007: holds; SI-SDR 8.450, must be 8.45 ± 0.05: holds."
    )
    assert gate.sentence([]) == ""


def test_the_ranking_of_fewer_pairs_is_told_from_the_gates(bank) -> None:
    rows = gate.measured(bank, Scores())
    assert gate.sentence(rows, 4) == gate.sentence(rows)
    assert gate.sentence(rows, 3).endswith(
        " The ranking judges 3 of these 4 pairs: hold its scores against each other, not against published ones."
    )


@pytest.mark.parametrize(("metric", "step"), [("pesq_wb", 0.02), ("stoi", 0.007), ("si_sdr", 0.05)])
def test_the_edge_of_the_tolerance_holds_and_beyond_it_fails(metric: str, step: float) -> None:
    wanted, tolerance = CARD.gate[metric]
    for value in (wanted + step, wanted - step):
        assert gate.Row(metric, value, wanted, tolerance, 4, 4).holds
    for value in (wanted + step + 1e-6, wanted - step - 1e-6, math.nan):
        assert not gate.Row(metric, value, wanted, tolerance, 4, 4).holds


def test_a_part_of_the_test_set_does_not_hold_whatever_its_means(bank) -> None:
    bank.card = CARD.model_copy(update={"expected": {"test": 824}})
    rows = gate.measured(bank, Scores())
    assert not any(row.holds for row in rows)
    said = gate.sentence(rows)
    assert said.startswith("Gate zero fails, so that no score here can be compared with published ones: ")
    assert "PESQ-WB 1.970 over 4 of 824 pairs, must be 1.97 ± 0.02: FAILS" in said


def test_a_pair_without_a_value_keeps_its_metric_from_holding(bank) -> None:
    def scores(noisy, clean, wanted):
        made = Scores()(noisy, clean, wanted)
        made[1][0]["stoi"] = math.nan
        for values, _ in made:
            values["si_sdr"] = math.nan
        return made

    pesq, stoi, si_sdr = gate.measured(bank, scores)
    assert (pesq.pairs, stoi.pairs, si_sdr.pairs) == (4, 3, 0)
    assert pesq.holds
    assert not stoi.holds
    assert not si_sdr.holds
    assert math.isnan(si_sdr.value)  # and not a mean of nothing, 0 dB


def test_it_is_measured_once_for_each_metric_and_version_of_the_results(bank, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = Scores()
    first = gate.measured(bank, scores)
    assert gate.measured(bank, scores) == first
    assert len(scores.asked) == 1
    monkeypatch.setattr(gate, "RESULT_VERSION", gate.RESULT_VERSION + 1)
    gate.measured(bank, scores)
    assert len(scores.asked) == 2
    bank.card = CARD.model_copy(update={"gate": CARD.gate | {"estoi": (0.78, 0.02)}})
    scores.means["estoi"] = 0.78
    gate.measured(bank, scores)
    assert scores.asked[2] == ("estoi",)


@pytest.mark.parametrize("left", ["", '{"pesq_wb/1": [1.9', '{"pesq_wb": 1.97, "stoi": 0.921, "si_sdr": 8.45}', "[]"])
def test_half_a_file_or_an_older_one_is_measured_again(bank, left: str) -> None:
    (bank.folder / gate.FILE).write_text(left)
    scores = Scores()
    assert all(row.holds for row in gate.measured(bank, scores))
    assert len(scores.asked) == 1
    assert [path.name for path in bank.folder.iterdir()] == [gate.FILE]
    assert json.loads((bank.folder / gate.FILE).read_text())


def test_a_write_that_breaks_off_leaves_the_file_that_was_there(bank, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.measured(bank, Scores())
    before = (bank.folder / gate.FILE).read_text()
    monkeypatch.setattr(gate, "RESULT_VERSION", gate.RESULT_VERSION + 1)

    def broken(self: Path, text: str) -> int:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", broken)
    with pytest.raises(OSError, match="no space left"):
        gate.measured(bank, Scores())
    assert (bank.folder / gate.FILE).read_text() == before
