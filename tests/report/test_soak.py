import pytest

from harness.report.soak import as_text, verdicts

TARGETS = {"snr": ("si_sdr",), "estoi": ("estoi", "si_sdr")}


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_loss_is_held_to_what_it_targets_and_else_to_si_sdr(make_results, seeds):
    results = make_results({"mse": 1.0, "snr": 1.5, "estoi": 1.0}, targets=TARGETS, seeds=seeds)
    rows = verdicts(results, "p1")
    assert {(row["loss"], row["metric"]) for row in rows} == {
        ("mse", "si_sdr"),
        ("snr", "si_sdr"),
        ("estoi", "estoi"),
        ("estoi", "si_sdr"),
    }
    assert all(row["improves"] and row["low"] < row["gain"] < row["high"] for row in rows)


def test_what_does_not_improve_for_certain_comes_first_and_says_no(make_results):
    gains = {"mse": 1.0, "worse": -0.5, "same": 0.0, "good": 1.0}
    results = make_results(gains, seeds=1, diverged=(("good", 0),))
    rows = verdicts(results, "p1")
    # A diverged seed scores as the mixture does: it does not improve.
    assert [(row["loss"], row["improves"]) for row in rows] == [
        ("good", False),
        ("same", False),
        ("worse", False),
        ("mse", True),
    ]
    assert as_text(rows[0])[-1] == "NO"
    assert as_text(rows[-1])[0] == "mse"


def test_no_runs_no_verdicts(make_results):
    assert verdicts(make_results({"mse": 1.0}), "another protocol") == []
