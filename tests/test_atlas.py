"""What losses mind and are blind to, against what is known of them in closed form."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from harness import atlas
from harness.data import corpora
from harness.data.audio import active_level
from harness.distortions import DISTORTIONS
from harness.errors import UserError

NAMES = ("si_sdr", "snr", "mse", "ci_sdr", "spectral_mag", "wsdr")


@pytest.fixture(scope="module")
def clean() -> torch.Tensor:
    return atlas.speech(say=lambda line: None)


@pytest.fixture(scope="module")
def table(clean: torch.Tensor) -> pd.DataFrame:
    return atlas.responses(NAMES, clean)


def along(table: pd.DataFrame, loss: str, distortion: str, column: str = "value") -> pd.Series:
    rows = table[(table["loss"] == loss) & (table["distortion"] == distortion)]
    return rows.set_index("level")[column]


def test_the_recording_is_a_test_prompt_at_the_level_that_is_said(clean: torch.Tensor) -> None:
    assert active_level(clean.numpy() * 32768) == pytest.approx(atlas.LEVEL, abs=0.01)
    assert corpora.card(atlas.CORPUS).split.of(atlas.CLIP.split("/")[1], atlas.CLIP.split("/")[0]) == "test"  # type: ignore[union-attr]


def test_every_loss_has_a_finite_value_and_gradient_at_every_level(table: pd.DataFrame) -> None:
    assert len(table) == len(NAMES) * sum(len(d.levels) for d in DISTORTIONS)
    assert np.isfinite(table[["value", "relative", "gradient", "slope"]]).all().all()
    assert (table["gradient"] >= 0).all()


def test_noise_at_0_db_counts_as_one_and_the_recording_as_none(table: pd.DataFrame) -> None:
    for loss in NAMES:
        assert along(table, loss, "noise", "relative")[0] == pytest.approx(1)
        assert along(table, loss, "delay", "relative")[0] == pytest.approx(0, abs=1e-3)


def test_gain_does_not_move_si_sdr_and_moves_mse_by_its_square(table: pd.DataFrame, clean: torch.Tensor) -> None:
    assert along(table, "si_sdr", "gain", "relative").abs().max() < 1e-3
    power = float(clean.double().square().mean())
    expected = [(10 ** (db / 20) - 1) ** 2 * power for db in along(table, "mse", "gain").index]
    assert along(table, "mse", "gain").tolist() == pytest.approx(expected, rel=1e-4, abs=1e-12)


def test_inverting_moves_snr_by_its_closed_form_and_no_loss_that_is_blind_to_phase(table: pd.DataFrame) -> None:
    # The error is twice the recording, -6.02 dB; the loss caps the ratio at 30 dB.
    bounded = 10 * math.log10(4 + 10 ** (-30 / 10))
    assert along(table, "snr", "polarity")[180] == pytest.approx(bounded, abs=1e-3)
    for blind in ("spectral_mag", "si_sdr"):
        assert along(table, blind, "polarity", "relative")[180] == pytest.approx(0, abs=1e-3)
    assert along(table, "si_sdr", "polarity", "relative")[90] > 1  # a quarter turn leaves nothing of the target


def test_a_delay_within_its_filter_hardly_moves_ci_sdr_where_snr_falls(table: pd.DataFrame) -> None:
    near, beyond = along(table, "ci_sdr", "delay", "relative")[[128, 512]]  # of its 512 taps
    assert near < 0.1
    assert beyond > 4 * near
    assert along(table, "snr", "delay", "relative")[128] > 0.9


def test_less_and_less_of_the_band_clips_and_reverberates_worse_and_worse(table: pd.DataFrame) -> None:
    for loss in NAMES:
        for distortion in ("low-pass", "clipping", "reverberation"):
            values = along(table, loss, distortion)
            assert (values.diff().dropna() >= -1e-3 * abs(values).max()).all(), (loss, distortion)


def test_the_gradient_is_that_of_the_value(table: pd.DataFrame, clean: torch.Tensor) -> None:
    # d/de mean((e - s)^2) = 2 (e - s) / N: the error at 0 dB is as large as the recording.
    norm = float(torch.linalg.vector_norm(clean.double()))
    assert along(table, "mse", "noise", "gradient")[0] == pytest.approx(2 * norm / len(clean), rel=1e-3)
    assert along(table, "mse", "noise", "slope")[0] == pytest.approx(2, rel=1e-3)


def test_a_combination_is_the_weighted_sum_of_its_terms(table: pd.DataFrame, clean: torch.Tensor) -> None:
    both = atlas.respond("snr + 2*mse", clean, DISTORTIONS[:1])
    expected = along(table, "snr", "noise") + 2 * along(table, "mse", "noise")
    assert both["value"].tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert set(both["family"]) == {"combination"}


@pytest.mark.parametrize(("loss", "words"), [("ctc", "log_probs"), ("mse + 0.1*l2_penalty", "parameters")])
def test_a_loss_of_something_else_is_refused_in_one_line(loss: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        atlas.respond(loss, torch.ones(1000))
