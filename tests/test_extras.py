"""Extras: what each brings, how their absence is told, and that the docs list them all."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from conftest import ROOT
from typer.testing import CliRunner

from midway_hub import _console as console
from midway_hub._extras import EXTRAS, explained, how_to_install

DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "lightning_fabric": "lightning-fabric",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}
SHIPPED = [path for folder in ("midway_hub", "training") for path in (ROOT / folder).rglob("*.py")]


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names_of(requirements):
    return {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements}


@pytest.mark.parametrize("package", EXTRAS)
def test_the_extra_that_is_named_brings_the_package(project, package):
    extra = project["optional-dependencies"][EXTRAS[package]]
    assert DISTRIBUTIONS.get(package, package) in names_of(extra)


def test_every_extra_brings_something_that_is_named(project):
    assert set(project["optional-dependencies"]) - {"dev"} == set(EXTRAS.values())


def test_what_an_extra_brings_is_imported_somewhere_or_in_the_docs(project):
    """An extra that nothing uses is dead."""
    imported = {name.partition(".")[0] for path in SHIPPED for name in imports_of(path)}
    shown = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    for extra in set(EXTRAS.values()):
        packages = [package for package, brought_by in EXTRAS.items() if brought_by == extra]
        assert imported & set(packages) or any(f"torch.{package}.export" in shown for package in packages), extra


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.removeprefix("torch.utils.")  # torch's door to tensorboard
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))


def test_the_docs_list_every_extra_and_its_command(project):
    page = (ROOT / "docs" / "command_line.md").read_text()
    for extra in set(project["optional-dependencies"]) - {"dev"}:
        assert re.search(rf"^\| `{extra}` \| [^|]+ \| `pip install '\.\[{extra}\]'` \|$", page, re.MULTILINE), extra


@pytest.mark.parametrize("name", ["yaml", "lightning_fabric", "lightning_fabric.plugins", "cv2"])
def test_a_missing_package_of_an_extra_is_told_with_what_to_type(name):
    trouble = ModuleNotFoundError(f"No module named {name!r}", name=name)
    package = name.partition(".")[0]
    assert explained(trouble) == f"this needs the package {package}, which is not installed: {how_to_install(package)}"


@pytest.mark.parametrize(
    "trouble", [ModuleNotFoundError("No module named 'x'", name="x"), ImportError("h5py is broken"), ValueError("no")]
)
def test_other_trouble_is_told_as_it_is(trouble):
    assert explained(trouble) == str(trouble)


@pytest.mark.parametrize("package", ["gradio", "yaml", "wandb"])
def test_a_command_that_lacks_a_package_names_the_extra(monkeypatch, package):
    def use():
        __import__(package)

    monkeypatch.setitem(sys.modules, package, None)
    app = typer.Typer()
    app.callback()(lambda: None)
    console.command(app)(use)
    result = CliRunner().invoke(app, ["use"])
    assert result.exit_code == 1
    assert f"pip install 'midway-hub[{EXTRAS[package]}]'" in result.stderr


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [("yaml", ["recipes"]), ("yaml", ["pretrain", "smoke"]), ("lightning_fabric", ["pretrain", "smoke", "--dry-run"])],
)
def test_training_without_its_extra_says_what_to_type(tmp_path, missing, arguments):
    code = f"import runpy, sys; sys.modules[{missing!r}] = None; sys.argv[1:] = {arguments!r}\n"
    code += "runpy.run_module('midway_hub.training', run_name='__main__')"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "pip install 'midway-hub[train]'" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(Path(tmp_path).iterdir()) == []
