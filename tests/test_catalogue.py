import json

from harness import catalogue, paths
from harness.losses import all_losses


def test_the_readme_shows_every_loss_as_it_is():
    readme = (paths.ROOT / "README.md").read_text()
    assert catalogue.with_table(readme) == readme, "run `python -m harness.catalogue` and commit README.md"


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
