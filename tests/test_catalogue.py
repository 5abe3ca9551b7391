import json

from harness import catalogue, paths
from harness.losses import all_losses
from harness.tasks import fields


def test_the_readme_shows_every_loss_as_it_is():
    readme = (paths.ROOT / "README.md").read_text()
    assert catalogue.with_tables(readme) == readme, "run `python -m harness.catalogue` and commit README.md"


def test_the_table_has_a_row_a_loss_with_fields_settings_minimum_targets_and_paper():
    lines = catalogue.as_table().splitlines()
    rows = {line.split("`")[1]: [cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]}
    assert list(rows) == list(all_losses())
    assert all(len(row) == 6 for row in rows.values())
    assert rows["snr"][:5] == [
        "`snr` = `sdr`",
        "estimate clean [lengths]",
        "`zero_mean=False`, `max_db=30`, `eps=1e-10`",
        "-30 dB",
        "snr",
    ]
    assert "1811.02508" in rows["snr"][5]
    assert "`resolutions=((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))`" in rows["multi_res_stft"][2]


def test_settings_come_with_their_ranges_as_json():
    rows = {row["name"]: row for row in json.loads(json.dumps(catalogue.as_data()))["losses"]}
    assert rows["huber"]["settings"]["delta"]["range"] == {"low": 1e-3, "high": 1.0, "log": True}
    assert rows["spectral_mag"]["settings"]["p"]["choices"] == [1, 2]
    assert rows["multi_res_stft"]["settings"]["resolutions"]["valid"].startswith("rows of (fft from 64 to 4096, ")
    assert rows["sd_sdr"]["family"] == "distortion"


CLASSIFIER = {
    "cross_entropy", "nll", "kl_div", "js_div", "focal", "multi_margin", "bce", "bce_with_logits", "binary_focal", "hinge",
    "soft_margin", "multi_label_margin", "multi_label_soft_margin", "cosine_embedding", "contrastive", "hinge_embedding",
    "margin_ranking", "triplet_margin", "center", "supcon", "aam_softmax",
}  # fmt: skip


def test_a_denoiser_is_trained_by_losses_on_waveforms_alone():
    """Fields that follow from a class or an embedding follow from no waveform."""
    asked = {name for name in catalogue.trainable("denoise") for name in all_losses()[name].fields}
    assert asked == {"estimate", "clean", "noisy", "estimates", "sources"}
    assert len(catalogue.trainable("denoise")) == 23


def test_a_class_logits_and_an_embedding_are_enough_for_every_loss_of_a_classifier():
    have = fields.available(("noisy", "label", "logits", "embedding"))
    assert {name for name, info in all_losses().items() if have >= set(info.fields)} == CLASSIFIER


def test_several_classes_at_once_fit_the_losses_that_decide_each_by_itself():
    have = fields.available(("noisy", "targets", "logits"))
    assert {name for name, info in all_losses().items() if have >= set(info.fields)} == {
        "bce", "bce_with_logits", "binary_focal", "hinge", "soft_margin", "multi_label_margin", "multi_label_soft_margin",
    }  # fmt: skip
