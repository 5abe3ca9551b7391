import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
import pesq
import pystoi
import pytest
import torch
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio, signal_noise_ratio

from harness import metrics
from harness.metrics import METRICS, OF_CLIPS, Scorer, ScoringError, score
from tests import faulty
from tests.real import mixtures

RATE = 16_000
NAMES = OF_CLIPS
CHEAP = ("pesq_wb", "stoi", "estoi", "si_sdr", "snr")
DNSMOS = ("dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl")


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Two seconds of a real mixture and of its speech."""
    noisy, clean = mixtures("matched", 3)[2]
    return noisy[: 2 * RATE], clean[: 2 * RATE]


def test_every_metric_names_itself_its_unit_and_a_floor():
    assert set(NAMES) == {"pesq_wb", "pesq_nb", "stoi", "estoi", "si_sdr", "snr", *DNSMOS}
    assert [METRICS[name].floor for name in ("pesq_wb", "stoi", "si_sdr")] == [1.0, 0.0, -30.0]
    assert METRICS["si_sdr"].unit == "dB"


@pytest.mark.parametrize("place", [0, 1])
def test_scores_are_those_of_the_packages(place):
    noisy, clean = mixtures("matched", 3)[place]
    values, floored = score(noisy, clean, NAMES)
    estimate, target = torch.from_numpy(noisy).double(), torch.from_numpy(clean).double()
    expected = {
        "pesq_wb": pesq.pesq(RATE, clean, noisy, "wb"),
        "pesq_nb": pesq.pesq(RATE, clean, noisy, "nb"),
        "stoi": pystoi.stoi(clean, noisy, RATE),
        "estoi": pystoi.stoi(clean, noisy, RATE, extended=True),
        "si_sdr": scale_invariant_signal_distortion_ratio(estimate, target, zero_mean=True).item(),
        "snr": signal_noise_ratio(estimate, target).item(),
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert floored == []
    assert list(values) == list(NAMES)


def test_si_sdr_and_snr_are_their_formulas(pair):
    noisy, clean = (signal.astype(np.float64) for signal in pair)
    values, _ = score(noisy, clean, ("si_sdr", "snr"))
    assert values["snr"] == pytest.approx(10 * np.log10((clean**2).sum() / ((noisy - clean) ** 2).sum()), abs=1e-4)
    e, s = noisy - noisy.mean(), clean - clean.mean()
    target = (e @ s) / (s @ s) * s
    expected = 10 * np.log10((target @ target) / ((e - target) @ (e - target)))
    assert values["si_sdr"] == pytest.approx(expected, abs=1e-4)


@lru_cache(maxsize=1)
def session():
    import onnxruntime

    folder = Path(importlib.util.find_spec("speechmos").origin).parent / "dnsmos_models"
    return onnxruntime.InferenceSession(str(folder / "sig_bak_ovr.onnx"), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("seconds", "windows"), [(2, 1), (9.5, 1), (11.3, 2)])
def test_dnsmos_is_the_model_on_9_seconds_a_second_apart_and_its_published_polynomials(pair, seconds, windows):
    clip = np.tile(pair[0], 14)[: round(seconds * RATE)]
    values, floored = score(clip, clip, DNSMOS)
    assert floored == []
    if seconds < 9.01:
        clip = np.tile(clip, 10)[:144_160]
    raw = [
        session().run(None, {"input_1": clip[None, k * RATE : k * RATE + 144_160].astype(np.float32)})[0][0]
        for k in range(windows)
    ]
    fits = {
        "dnsmos_sig": np.poly1d([-0.08397278, 1.22083953, 0.0052439]),
        "dnsmos_bak": np.poly1d([-0.13166888, 1.60915514, -0.39604546]),
        "dnsmos_ovrl": np.poly1d([-0.06766283, 1.11546468, 0.04602535]),
    }
    expected = {name: np.mean([fit(row[k]) for row in raw]) for k, (name, fit) in enumerate(fits.items())}
    assert values == pytest.approx(expected, abs=1e-5)


def test_every_metric_likes_speech_better_than_its_mixture(pair):
    noisy, clean = pair
    worse, _ = score(noisy, clean, NAMES)
    better, _ = score(0.9 * clean + 0.1 * noisy, clean, NAMES)
    assert all(better[name] > worse[name] for name in NAMES)


def test_a_perfect_estimate_reaches_the_top_of_every_scale(pair):
    values, floored = score(pair[1], pair[1], NAMES)
    assert values["pesq_wb"] == pytest.approx(4.64, abs=0.01)
    assert values["pesq_nb"] == pytest.approx(4.55, abs=0.01)
    assert values["stoi"] == pytest.approx(1)
    assert values["estoi"] == pytest.approx(1)
    assert min(values["si_sdr"], values["snr"]) > 100
    assert floored == []


@pytest.mark.parametrize("estimate", ["noise", "silence", "wrong length", "not finite"])
def test_a_silent_reference_is_missing_whatever_the_estimate(pair, estimate):
    made = {"noise": pair[0], "silence": 0 * pair[0], "wrong length": pair[0][:5], "not finite": pair[0] * np.nan}
    values, floored = score(made[estimate], 0 * pair[1], NAMES)
    assert np.isnan(list(values.values())).all()
    assert floored == []


@pytest.mark.parametrize("estimate", ["noisy", "not finite", "silent"])
def test_metrics_that_need_more_than_a_short_reference_are_missing_the_others_are_not(pair, estimate):
    noisy, clean = (signal[8000:11000] for signal in pair)  # 0.19 s
    made = {"noisy": noisy, "not finite": np.full_like(noisy, np.nan), "silent": 0 * noisy}[estimate]
    values, floored = score(made, clean, NAMES)
    assert {name for name in NAMES if np.isnan(values[name])} == {"pesq_wb", "pesq_nb", "stoi", "estoi"}
    bad = {"noisy": set(), "not finite": {"si_sdr", "snr", *DNSMOS}, "silent": {"si_sdr", *DNSMOS}}
    assert set(floored) == bad[estimate]


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_one_sample_that_is_not_finite_floors_every_metric(pair, bad):
    estimate = pair[0].copy()
    estimate[777] = bad
    values, floored = score(estimate, pair[1], NAMES)
    assert values == {name: METRICS[name].floor for name in NAMES}
    assert floored == list(NAMES)


@pytest.mark.parametrize("shape", ["shorter", "longer", "empty", "two channels"])
def test_an_estimate_of_another_length_floors_every_metric(pair, shape):
    noisy = pair[0]
    made = {"shorter": noisy[:-1], "longer": np.append(noisy, 0), "empty": noisy[:0], "two channels": noisy[None]}
    values, floored = score(made[shape], pair[1], CHEAP)
    assert values == {name: METRICS[name].floor for name in CHEAP}
    assert floored == list(CHEAP)


@pytest.mark.parametrize("value", [0.0, 0.1, -1.0])
def test_an_estimate_without_any_sound_is_not_rewarded(pair, value):
    noisy, clean = pair
    values, floored = score(np.full_like(noisy, value), clean, NAMES)
    assert np.isfinite(list(values.values())).all()
    assert all(values[name] >= METRICS[name].floor for name in NAMES)
    assert values["si_sdr"] == -30
    assert "si_sdr" in floored
    if value == 0:
        mixture, _ = score(noisy, clean, NAMES)
        assert all(values[name] < mixture[name] for name in NAMES)
        assert {"pesq_wb", "pesq_nb", *DNSMOS} <= set(floored)
        assert values["snr"] == pytest.approx(0, abs=1e-6)  # its definition: all of the speech is missing


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 0.1, 30.0, -1.0])
def test_si_sdr_does_not_depend_on_scale_or_offset(pair, scale):
    noisy, clean = (signal.astype(np.float64) for signal in pair)
    expected = score(noisy, clean, ("si_sdr",))[0]["si_sdr"]
    assert score(scale * noisy, clean, ("si_sdr",))[0]["si_sdr"] == pytest.approx(expected, abs=1e-4)
    assert score(noisy + 0.05, clean, ("si_sdr",))[0]["si_sdr"] == pytest.approx(expected, abs=1e-3)


def test_a_value_under_the_floor_is_the_floor_and_counted(pair):
    noisy, clean = pair
    values, floored = score(noisy - 200 * clean.std() * np.ones_like(clean) * np.sign(noisy), clean, ("snr",))
    assert values == {"snr": -30.0}
    assert floored == ["snr"]


def test_floored_scores_are_never_missing_and_missing_scores_never_floored(pair):
    rng = np.random.default_rng(0)
    noisy, clean = pair
    estimates = [noisy, 0 * noisy, rng.standard_normal(len(noisy)), noisy * np.nan, np.eye(1, len(noisy), 500)[0]]
    for reference in (clean, 0 * clean, np.eye(1, len(clean), 500)[0]):
        missing = set()
        for estimate in estimates:
            values, floored = score(estimate, reference, CHEAP)
            assert not {name for name in floored if np.isnan(values[name])}
            missing.add(tuple(name for name in CHEAP if np.isnan(values[name])))
        assert len(missing) == 1  # the reference alone decides, so it is missing for all losses alike


def test_only_what_is_asked_for_is_computed_and_in_that_order(pair):
    assert list(score(*pair, ("snr", "si_sdr"))[0]) == ["snr", "si_sdr"]
    assert score(*pair, ())[0] == {}


def test_arguments_are_left_as_they_were(pair):
    noisy, clean = (signal.copy() for signal in pair)
    noisy[0] = 3.0  # louder than full scale
    before = noisy.copy(), clean.copy()
    score(noisy, clean, NAMES)
    np.testing.assert_array_equal(noisy, before[0])
    np.testing.assert_array_equal(clean, before[1])


def test_a_pool_of_two_processes_gives_the_same_scores_in_the_same_order_as_none():
    clips = mixtures("matched", 5)  # one more than a process takes at once
    noisy, clean = (
        [signal[4000 : RATE + 1000 * k] for k, signal in enumerate(side)] for side in zip(*clips, strict=True)
    )
    noisy[1] = noisy[1] * np.nan
    clean[2] = 0 * clean[2]
    with Scorer(1) as alone, Scorer(2) as pool:
        asked = [NAMES] * (len(noisy) - 1) + [CHEAP]
        expected = alone(noisy, clean, asked)
        got = pool(noisy, clean, asked)
        assert set(got[-1][0]) == set(CHEAP) < set(got[0][0])
        assert pool([], [], []) == []
    for (values, floored), (want, want_floored) in zip(got, expected, strict=True):
        assert floored == want_floored
        np.testing.assert_allclose(list(values.values()), list(want.values()), rtol=1e-12)
        assert list(values) == list(want)
    assert expected[1][1] == list(NAMES)
    assert np.isnan(expected[2][0]["pesq_wb"])


def test_as_many_estimates_as_references_are_needed(pair):
    with pytest.raises(ValueError, match="shorter"):
        Scorer(1)([pair[0]], [], [CHEAP])


def at_fault(clip, how):
    return np.concatenate([[np.float32(how)], clip[1:]])


def test_a_metric_that_raises_names_the_clip(pair, monkeypatch):
    estimate, clean = pair
    monkeypatch.setattr(metrics, "_score", faulty.scored)
    with Scorer(1) as scorer, pytest.raises(ScoringError, match="ZeroDivisionError: no frames") as caught:
        scorer([estimate, at_fault(estimate, faulty.RAISES)], [clean] * 2, [("snr",), ("snr", "pesq_wb")])
    assert caught.value.place == 1


def test_a_scoring_process_that_dies_ends_one_call_and_not_the_next(pair, monkeypatch):
    estimate, clean = pair
    monkeypatch.setattr(metrics, "_score", faulty.scored)
    with Scorer(1) as scorer:
        first = scorer([estimate], [clean], [("pesq_wb",)])
        with pytest.raises(ScoringError, match="a scoring process died") as caught:
            scorer([estimate, at_fault(estimate, faulty.DIES)], [clean] * 2, [("pesq_wb",)] * 2)
        assert caught.value.place == 1
        assert scorer([estimate], [clean], [("pesq_wb",)]) == first


def test_a_metric_that_hangs_falls_to_its_floor_is_missing_where_the_clean_clip_hangs_and_all_else_is_scored(
    pair, monkeypatch
):
    estimate, clean = pair
    monkeypatch.setattr(metrics, "_score", faulty.scored)
    hanging, names = at_fault(estimate, faulty.HANGS), ("pesq_wb", "snr")
    with Scorer(1) as scorer:
        scorer([estimate], [clean], [names])  # and the process is ready
        scorer.limit = 2.0
        fine, floored, missing = scorer(
            [estimate, hanging, hanging], [clean, clean, at_fault(clean, faulty.HANGS)], [names] * 3
        )
        assert scorer.overdue == {1: ["pesq_wb"], 2: ["pesq_wb"]}
        assert scorer([estimate], [clean], [names]) == [fine]
        assert scorer.overdue == {}
    assert fine[0] == pytest.approx(score(estimate, clean, names)[0])
    assert floored[0]["pesq_wb"] == METRICS["pesq_wb"].floor
    assert floored[1] == ["pesq_wb"]
    assert floored[0]["snr"] == pytest.approx(fine[0]["snr"], abs=0.1)
    assert np.isnan(missing[0]["pesq_wb"])
    assert missing[1] == []
