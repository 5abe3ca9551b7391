"""Every loss trains every model that it fits, by the command that people use: few updates, few items, real recordings."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness import catalogue, losses, tasks
from tests.conftest import here, settled

UNTRAINED = {"deep_feature": "deep_feature(network='random')"}  # to train its network takes minutes
FEW = {"validation": 2, "matched": 2, "mismatched": 2}


def pairs() -> list[tuple[str, str]]:
    """Each task that has recordings of its own with its model, `denoise` with both; their variants with a free noise output
    are for `sa_sdr`."""
    own = [(task.name, task.model) for task in tasks.TASKS.values() if task.kind in ("speech", "words")]
    return [*own, ("denoise", "conv_tasnet")]


def trained(home: Path, task: str, model: str, wanted: list[str]) -> None:
    """A study of these losses at one rate and seed; each has one finished run a phase, judged on every set."""
    study = {
        "task": task,
        "model": model,
        "losses": wanted,
        "reference": {"loss": tasks.get(task).reference, "lr": 1e-3},
        "scenes": {"items": FEW | ({"dnsmos_every": 2} if task == "denoise" else {})},
        "batch": 4,
        "updates": {"tune": 2, "confirm": 3},
        "rates": [1e-3],
        "seeds": 1,
    }
    home.mkdir(exist_ok=True)
    (home / "every.yaml").write_text(yaml.safe_dump(study))
    done = here("study", str(home / "every.yaml"), home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    confirmed = [tags for tags in settled(home) if tags["phase"] == "confirm"]
    assert {tags["loss"] for tags in confirmed} >= {losses.parse(loss).expression for loss in wanted}
    assert {tags["state"] for tags in confirmed} == {"finished"}
    ranking = (home / "reports" / "ranking.csv").read_text()
    assert all(losses.parse(loss).expression in ranking for loss in wanted)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "model"), pairs())
def test_every_loss_of_a_task_trains_each_of_its_models(task: str, model: str, tmp_path: Path) -> None:
    trained(tmp_path, task, model, [UNTRAINED.get(loss, loss) for loss in catalogue.trainable(task)])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gru_mask_pair", "conv_tasnet_pair"])
def test_a_free_noise_output_is_trained_by_sa_sdr_and_by_the_losses_on_speech(model: str, tmp_path: Path) -> None:
    trained(tmp_path, "denoise", model, ["sa_sdr", "snr"])
