"""The wheel holds all that an installed package needs, and works without the repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from midway_hub.training.recipes import list_recipes

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build from what git tracks and nothing else, as from a clean clone."""
    clone, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("dist")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-C", ROOT, "--null", "-T", "-", "-cf", clone / "tree.tar"], input=tracked, check=True)
    subprocess.run(["tar", "-C", clone, "-xf", clone / "tree.tar"], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", out, clone]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def run(installed: Path, tmp_path: Path, code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_the_wheel_holds_every_module_of_the_repository(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    links = ("midway_hub/training", "midway_hub/model_cards")
    ours = ("midway_hub/", "training/", "model_cards/")
    modules = [path for path in tracked if path.startswith(ours) and path not in links]
    assert modules
    expected = {f"midway_hub/{p}" if p.startswith(("training/", "model_cards/")) else p for p in modules}
    assert expected <= names


def test_the_wheel_is_small_enough_to_pass_around(wheel):
    assert wheel.stat().st_size < 40e6


def test_weights_cards_recipes_and_clip_load_from_the_wheel(installed, tmp_path):
    code = """
import midway_hub, sys
from midway_hub.cards import card_of
from midway_hub.training.recipes import list_recipes
from midway_hub.app.demo import sample_clip
print(midway_hub.MidwayNetwork.from_pretrained("midway_pico_untrained").load_report.source)
print(card_of("midway_vits_bdd100k").startswith("---"), ",".join(list_recipes()), sample_clip().exists())
print(midway_hub.__file__)
"""
    source, parts, place = run(installed, tmp_path, code).splitlines()
    assert source == "registry name midway_pico_untrained"
    assert parts == f"True {','.join(list_recipes())} True"
    assert place.startswith(str(installed))


def test_importing_the_installed_package_stays_light(installed, tmp_path):
    heavy = ("transformers", "timm", "torchvision", "torch")
    assert run(installed, tmp_path, f"import sys, midway_hub; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_lint_sees_across_the_folders(tmp_path):
    """A wrong type, and a name that is not there, in one file of the training package about another one."""
    clone = tmp_path / "clone"
    clone.mkdir()
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-C", ROOT, "--null", "-T", "-", "-cf", tmp_path / "tree.tar"], input=tracked, check=True)
    subprocess.run(["tar", "-C", clone, "-xf", tmp_path / "tree.tar"], check=True)
    planted = clone / "training" / "planted.py"
    planted.write_text(
        "from midway_hub.training.timeline import Timeline\n\n"
        'line = Timeline(steps="x", steps_per_epoch=1, batch_size=1, visits_per_step=1)\nprint(line.there_is_none)\n'
    )
    ran = subprocess.run([sys.executable, "-m", "mypy"], cwd=clone, capture_output=True, text=True)
    assert ran.returncode != 0
    assert 'Argument "steps" to "Timeline" has incompatible type "str"' in ran.stdout
    assert '"Timeline" has no attribute "there_is_none"' in ran.stdout


def test_a_bare_checkout_imports_its_own_training_code(tmp_path):
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-C", ROOT, "--null", "-T", "-", "-cf", tmp_path / "tree.tar"], input=tracked, check=True)
    subprocess.run(["tar", "-C", tmp_path, "-xf", tmp_path / "tree.tar"], check=True)
    code = "import midway_hub.training, midway_hub; print(midway_hub.__file__, midway_hub.training.__file__)"
    assert run(tmp_path, tmp_path, code).count(str(tmp_path)) == 2
