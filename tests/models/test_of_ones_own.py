"""Models of a user's own, from a file: what the README shows, and one of each kind through a study of seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from harness import paths
from tests.conftest import here, settled

pytestmark = pytest.mark.usefixtures("own_registries")

HEAD = "import torch\nfrom torch import nn\nfrom harness.models import model\n"
CLASSIFIER = '''
@model(gives=("logits", "embedding"))
class Own(nn.Module):
    """Band energies of the clip. noisy: (batch, samples). Returns logits, (batch, classes), and embedding, (batch, 8)."""
    def __init__(self, *, classes):
        super().__init__()
        self.bands, self.classify = nn.Conv1d(1, 8, 64, stride=32, bias=False), nn.Linear(8, classes)
    def forward(self, noisy):
        noisy = nn.functional.pad(noisy, (0, max(0, 64 - noisy.shape[-1])))
        energy = self.bands(noisy[:, None]).square().mean(-1)
        embedding = nn.functional.normalize(energy, dim=-1)
        return {"logits": self.classify(embedding), "embedding": embedding}
    def shared_parameters(self):
        return [self.bands.weight]
'''
SEPARATOR = '''
@model(gives=("estimates",))
class Own(nn.Module):
    """Two short filters. noisy: (batch, samples). Returns estimates, (batch, 2, samples)."""
    def __init__(self):
        super().__init__()
        self.filter = nn.Conv1d(1, 2, 33, padding=16, bias=False)
    def forward(self, noisy):
        return {"estimates": self.filter(noisy[:, None])}
    def shared_parameters(self):
        return [self.filter.weight]
'''
TWO_CHANNELS = '''
@model(gives=("estimate",))
class Own(nn.Module):
    """Filter and sum. channels: (batch, 2, samples). Returns estimate, (batch, samples)."""
    def __init__(self):
        super().__init__()
        self.filter = nn.Conv1d(2, 1, 33, padding=16, bias=False)
    def forward(self, channels):
        return {"estimate": self.filter(channels)[:, 0]}
    def shared_parameters(self):
        return [self.filter.weight]
'''
ITEMS = {"validation": 2, "matched": 2, "mismatched": 2}
# model, task, losses, scenes
KINDS: dict[str, tuple[str, str, list[str], dict[str, Any]]] = {
    "a classifier": (CLASSIFIER, "keywords", ["cross_entropy", "cross_entropy + center"], {}),
    "a separator": (SEPARATOR, "separate", ["sa_sdr", "snr + mse"], {"seconds": 1, "silent": 0.5}),
    "two channels": (
        TWO_CHANNELS,
        "denoise",
        ["si_sdr", "snr + mse"],
        {"seconds": 1, "rooms": "shoebox", "channels": 2},
    ),
}


def recipe() -> str:
    section = (paths.ROOT / "README.md").read_text().split("## Which loss for my model?")[1]
    return section.split("```python\n")[1].split("```")[0]


def study(file: Path, task: str, losses: list[str], scenes: dict[str, Any]) -> str:
    reference = "cross_entropy" if task == "keywords" else "mse"
    raw = {
        "task": task,
        "losses": losses,
        "controls": False,
        "reference": {"loss": reference, "lr": 1e-3},
        "scenes": scenes | {"items": ITEMS},
        "batch": 32 if task == "keywords" else 2,
        "updates": {"tune": 1, "confirm": 2},
        "rates": [1e-3],
        "seeds": 1,
    }
    file.write_text(yaml.safe_dump(raw))
    return str(file)


def test_the_readme_s_recipe_of_a_model_has_few_lines_and_passes_every_check_and_a_study_and_denoises(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.py").write_text(recipe())
    assert sum(bool(line.strip()) and not line.startswith("#") for line in recipe().splitlines()) <= 15
    done = here("check", str(tmp_path / "mine.py"), home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("mine: ")
    own = ["--plugin", str(tmp_path / "mine.py")]
    file = study(tmp_path / "few.yaml", "denoise", ["si_sdr"], {"seconds": 0.5})
    done = here("worker", file, "--model", "mine", *own, home=tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    soundfile.write(tmp_path / "in.wav", 0.1 * np.random.default_rng(0).standard_normal(16_000), 16_000)
    out = tmp_path / "out.wav"
    done = here("enhance", "--loss", "si_sdr", *own, str(tmp_path / "in.wav"), str(out), home=tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    assert soundfile.info(out).frames == 16_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_each_kind_passes_every_check_and_goes_through_a_study(kind: str, tmp_path: Path) -> None:
    text, task, losses, scenes = KINDS[kind]
    (tmp_path / "own.py").write_text(HEAD + text)
    done = here("check", str(tmp_path / "own.py"), home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    file = study(tmp_path / "few.yaml", task, losses, scenes)
    done = here("worker", file, "--model", "own", "--plugin", str(tmp_path / "own.py"), home=tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = settled(tmp_path / "home")
    assert {tags["model"] for tags in runs} == {"own"}
    assert {tags["state"] for tags in runs} == {"finished"}
    assert {tags["loss"] for tags in runs if tags["phase"] == "confirm"} >= set(losses)
