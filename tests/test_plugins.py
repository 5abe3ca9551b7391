import pytest
import torch

from harness import keys, losses, models, spec
from harness.errors import UserError
from harness.plugins import load_plugins

pytestmark = pytest.mark.usefixtures("own_registries")

GOOD = """from __future__ import annotations
from torch import nn
from harness.losses import loss
from harness.models import model

@loss(minimum=0.0)
def mine(estimate, clean):
    "Absolute error, cubed."
    return (estimate - clean).abs().pow(3).mean(-1)

@model(gives=("estimate",))
class Halve(nn.Module):
    "Half of it."
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(__import__("torch").tensor(0.5))
    def forward(self, noisy):
        return {"estimate": self.scale * noisy}
    def shared_parameters(self):
        return [self.scale]
"""


def write(tmp_path, text: str, name: str = "own.py"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_losses_and_models_of_a_file_are_there_by_name(tmp_path):
    load_plugins([write(tmp_path, GOOD)])
    value = losses.mine(torch.full((3, 4), 2.0), torch.zeros(3, 4))
    assert value.tolist() == [8, 8, 8]
    assert losses.parse("0.5*mine + mse").expression == "0.5*mine + mse"
    assert models.build("halve")(torch.ones(1, 4))["estimate"].tolist() == [[0.5] * 4]


def test_a_study_may_use_them(tmp_path):
    load_plugins([write(tmp_path, GOOD)])
    study = spec.load("smoke", {"losses": ["mine", "mine + si_sdr"], "model": "halve"})
    assert study.losses == ("mine", "mine + si_sdr")


def test_a_model_that_has_changed_has_another_protocol_and_ours_have_no_source(tmp_path):
    def protocol(text: str, folder: str, name: str) -> dict[str, object]:
        (tmp_path / folder).mkdir()
        load_plugins([write(tmp_path / folder, text)])
        return keys.protocol(spec.load("smoke", {"model": name}), "digest", {})

    own = protocol(GOOD, "a", "halve")
    other = protocol(GOOD.replace("0.5", "0.4").replace("Halve", "Third").replace("def mine", "def its"), "b", "third")
    assert own["model_source"] != other["model_source"]
    assert "model_source" not in keys.protocol(spec.load("smoke"), "digest", {})


def test_a_file_is_run_once_however_often_it_is_named(tmp_path, monkeypatch):
    path = write(tmp_path, GOOD + f"\nopen({str(tmp_path / 'runs')!r}, 'a').write('x')\n")
    monkeypatch.chdir(tmp_path)
    load_plugins([path, path])
    load_plugins([path.relative_to(tmp_path)])
    assert (tmp_path / "runs").read_text() == "x"


def test_two_files_of_one_name_in_two_folders_are_two(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    load_plugins([write(tmp_path / "a", GOOD), write(tmp_path / "b", GOOD.replace("mine", "yours").split("@model")[0])])
    assert {"mine", "yours"} <= set(losses.all_losses())


def test_its_module_can_be_found_by_pickle(tmp_path):
    import pickle

    load_plugins([write(tmp_path, GOOD)])
    model = models.build("halve")
    assert type(pickle.loads(pickle.dumps(model))) is type(model)


MISTAKES = {
    "does not parse": ("import torch\ndef broken(:\n    pass\n", "line 2: SyntaxError"),
    "raises": ("x = 1\ny = 2\nraise ValueError('own\\nfault')\n", "line 3: ValueError: own fault"),
    "imports what is not there": ("\n\nimport no_such_package\n", "line 3: ModuleNotFoundError"),
    "calls a library wrongly": ("import json\n\n\n\njson.loads('{')\n", "line 5: JSONDecodeError"),
    "fails in a function of its own": ("def f():\n    return 1 / 0\n\nf()\n", "line 2: ZeroDivisionError"),
    "is not text": ("x = '\x00'\n", "SyntaxError"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_file_and_the_users_line(tmp_path, mistake):
    text, message = MISTAKES[mistake]
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_plugins([path])
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_after_its_mistake_is_mended_the_file_loads(tmp_path):
    path = write(tmp_path, "raise ValueError\n")
    with pytest.raises(UserError):
        load_plugins([path])
    path.write_text(GOOD + "# as long as it takes to be another file\n")
    load_plugins([path])
    assert "mine" in losses.all_losses()


@pytest.mark.parametrize("name", ["missing.py", "folder.py", "text.txt"])
def test_what_is_no_python_file_is_refused(tmp_path, name):
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "text.txt").write_text(GOOD)
    with pytest.raises(UserError, match="no such Python file") as caught:
        load_plugins([tmp_path / name])
    assert name in str(caught.value)


def test_a_name_that_is_taken_is_refused_and_the_built_in_one_stays(tmp_path):
    with pytest.raises(UserError, match=r"'mse'.*harness\.losses\.waveform") as caught:
        load_plugins([write(tmp_path, GOOD.replace("def mine", "def mse"))])
    assert "\n" not in str(caught.value)
    assert losses.get("mse").family == "waveform"
    with pytest.raises(UserError, match="two models are called 'gru_mask'"):
        load_plugins([write(tmp_path, GOOD.replace("class Halve", "class GruMask"), "other.py")])


def test_a_signature_that_says_too_little_is_refused_by_its_loss(tmp_path):
    text = GOOD.replace("def mine(estimate, clean)", "def mine(estimate, clean, *, p)")
    with pytest.raises(UserError, match="loss mine: the setting p needs a default"):
        load_plugins([write(tmp_path, text)])
