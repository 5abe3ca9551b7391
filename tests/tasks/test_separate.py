import numpy as np
import pytest
import torch

from harness import models, spec, tasks
from harness.errors import UserError
from harness.metrics import Scorer, score
from harness.tasks.separate import best_order, talking
from harness.tasks.task import Judged
from tests.real import CPU, talker_scenes

NAMES = ("si_sdr_improvement", "estoi")


@pytest.fixture(scope="module")
def separate():
    return tasks.get("separate")


@pytest.fixture(scope="module")
def examples():
    """The first five matched items; in the last one the first talker is silent."""
    return [talker_scenes().example(item) for item in talker_scenes().items("matched", 5)]


def judged(separate, outputs, examples, names=NAMES):
    return separate.score(outputs, examples, [names] * len(examples), Scorer(1))


def test_improvement_is_the_mean_over_the_talkers_in_the_best_order(separate, examples):
    rng = np.random.default_rng(0)
    sources = [example["sources"].numpy() for example in examples[:4]]
    made = [s + 0.01 * rng.standard_normal(s.shape).astype(np.float32) for s in sources]
    straight, swapped = judged(separate, made, examples[:4]), judged(separate, [m[::-1] for m in made], examples[:4])
    for (values, floored), (other, _), output, example, source in zip(
        straight, swapped, made, examples, sources, strict=False
    ):
        assert values == pytest.approx(other)
        assert not floored
        noisy = example["noisy"].numpy()
        gains = [
            score(output[k], source[k], ("si_sdr",))[0]["si_sdr"] - score(noisy, source[k], ("si_sdr",))[0]["si_sdr"]
            for k in (0, 1)
        ]
        assert values["si_sdr_improvement"] == pytest.approx(np.mean(gains), abs=1e-6)
        assert best_order(output, example) == (0, 1)
        assert best_order(output[::-1], example) == (1, 0)


def test_the_mixture_improves_nothing_and_ideal_masks_do(separate, examples):
    scenes, model, gain = talker_scenes(), models.get("gru_mask_pair").build, {}
    for control in separate.controls:
        made = separate.control(control, examples, scenes, model)
        assert all(output.shape == tuple(e["sources"].shape) for output, e in zip(made, examples, strict=True))
        scores = judged(separate, made, examples)
        gain[control] = np.mean([values["si_sdr_improvement"] for values, _ in scores[:4]])
        silent = scores[4][0]["attenuation"]
        assert silent == pytest.approx(0, abs=1e-4) if control == "unprocessed" else silent > 60
    assert gain["unprocessed"] == pytest.approx(0, abs=1e-9)
    assert gain["oracle_psm"] > gain["oracle_mask"] > 5


def test_a_silent_talker_is_judged_by_attenuation_and_the_other_by_no_improvement(separate, examples):
    example = examples[4]
    assert talking(example) == [1]
    voice, noisy = example["sources"][1].numpy(), example["noisy"].numpy()
    # A faint copy of the voice is as good an estimate of it as the loud one, but for its level.
    for leak, expected in ((0.5, 6.02), (0.1, 20.0), (0.0, 100.0)):
        made = np.stack([0.9 * voice, leak * noisy])
        ((values, floored),), ((swapped, _),) = (judged(separate, [output], [example]) for output in (made, made[::-1]))
        assert set(values) == {"estoi", "attenuation"}
        assert values["attenuation"] == pytest.approx(expected, abs=0.01)
        assert values == pytest.approx(swapped)
        assert values["estoi"] > 0.99
        assert floored == []


@pytest.mark.parametrize("bad", [np.nan, 0.0])
def test_an_output_that_fails_gets_the_floor(separate, examples, bad):
    made = [np.full(tuple(example["sources"].shape), bad, np.float32) for example in examples]
    scores = judged(separate, made, examples)
    for values, floored in scores[:4]:
        assert values["si_sdr_improvement"] == -30
        assert "si_sdr_improvement" in floored
    assert scores[4][0]["attenuation"] == (100 if bad == 0 else -30)


def test_estimates_are_those_of_the_model_clip_by_clip(separate, examples):
    torch.manual_seed(0)
    net = models.build("gru_mask_pair")
    made = separate.outputs(net, examples[:2], CPU, lambda step: {})
    assert net.training
    with torch.no_grad():
        expected = net.eval()(examples[1]["noisy"][None])["estimates"][0].numpy()
    np.testing.assert_allclose(made[1], expected, atol=1e-6)


def test_each_talker_of_a_kept_item_can_be_heard_by_himself(separate, examples, tmp_path):
    import soundfile

    made = [example["sources"].numpy()[::-1] for example in examples]  # the other way round
    ids = [f"matched/{place:03d}" for place in range(5)]
    separate.keep(tmp_path, Judged("matched", 1, ids, ids, examples, made), lambda **_: b"picture")
    kept = sorted(file.name for file in (tmp_path / "audio").glob("*.estimate.wav"))
    assert kept == [f"matched_{place:03d}_{talker}.estimate.wav" for place in (0, 1) for talker in (1, 2)]
    for name in kept:
        pair = [
            soundfile.read(tmp_path / "audio" / name.replace("estimate", kind))[0] for kind in ("clean", "estimate")
        ]
        np.testing.assert_allclose(*pair, atol=1e-4)


def test_a_study_of_it_wants_a_model_that_estimates_both_and_losses_on_waveforms():
    assert spec.load("separate").model == "conv_tasnet_pair"
    with pytest.raises(UserError, match="model 'gru_mask' does not give estimates, which task 'separate' predicts"):
        spec.load("separate", {"model": "gru_mask"})
    with pytest.raises(UserError, match="needs the field logits, label, which task 'separate' does not give"):
        spec.load("separate", {"losses": ["cross_entropy"]})
    assert {"sa_sdr", "si_sdr", "ci_sdr", "pmsqe", "wsdr"} <= set(spec.load("separate", {"losses": "all"}).losses)


def test_a_model_of_two_channels_wants_rooms_that_are_heard_by_two_microphones():
    assert spec.load("rooms_stereo").scenes.adds == ("channels",)
    with pytest.raises(
        UserError, match="model 'gru_mask_stereo' takes channels, which these scenes of task 'denoise' do not"
    ):
        spec.load("rooms", {"model": "gru_mask_stereo"})
    with pytest.raises(UserError, match="rooms: shoebox: of a mixture without a room there is one channel"):
        spec.load("denoise", {"scenes": {"channels": 2}})
