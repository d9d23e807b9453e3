"""Text is read and written as UTF-8 whatever the locale, and printed wherever it is printed to."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import midway_hub

PACKAGE = Path(midway_hub.__file__).parent
TRAINING = Path(__import__("midway_hub.training").training.__file__).parent
FILES = sorted({*PACKAGE.rglob("*.py"), *TRAINING.rglob("*.py")})
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LATIN = {"PYTHONIOENCODING": "latin-1"}


def without_encoding(source: str) -> list[int]:
    """Return the lines of calls that read or write text by the locale's encoding."""
    return [call.lineno for call in ast.walk(ast.parse(source)) if isinstance(call, ast.Call) and _by_locale(call)]


def _by_locale(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = {keyword.arg for keyword in call.keywords}
    if "encoding" in keywords or None in keywords:
        return False
    if name in ("read_text", "write_text"):
        return True
    if name in ("run", "Popen", "check_output") and {"text", "universal_newlines"} & keywords:
        return True
    if name != "open":
        return False
    place = 0 if isinstance(call.func, ast.Attribute) else 1  # of the mode: path.open(mode), open(path, mode)
    modes = [*call.args[place : place + 1], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant) and isinstance(mode.value, str)]
    return any(set(text) <= set("rwax+t") for text in texts) or (place == 1 and not modes)


def test_the_search_finds_what_depends_on_the_locale():
    found = "p.read_text()\np.write_text(t)\np.open('a')\nopen(p, 'r+')\nrun(c, text=True)\nopen(p)\n"
    fine = "p.read_text(encoding='utf-8')\np.open('rb')\nrun(c)\nav.open(name, 'w')\nrun(c, encoding='utf-8')\n"
    assert without_encoding(found) == [1, 2, 3, 4, 5, 6]
    assert without_encoding(fine) == []


@pytest.mark.parametrize("folder", [PACKAGE, TRAINING], ids=lambda folder: folder.name)
def test_nothing_reads_or_writes_text_by_the_locale(folder):
    files = [file for file in FILES if file.is_relative_to(folder)]
    found = {str(file): lines for file in files if (lines := without_encoding(file.read_text(encoding="utf-8")))}
    assert files
    assert not found


def ran(command, environment, cwd=None):
    done = subprocess.run(
        command,
        capture_output=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stderr.decode("latin-1")
    return done.stdout.decode("latin-1")


@pytest.mark.parametrize("environment", [ASCII, LATIN], ids=["ascii", "latin-1"])
@pytest.mark.parametrize("arguments", [["list"], ["info", "midway_vits_bdd100k"], ["verify", "midway_pico_untrained"]])
def test_commands_print_what_the_output_can_show(environment, arguments):
    shown = ran([str(Path(sys.executable).with_name("midway-hub")), *arguments], environment)
    assert arguments[-1] in shown or "midway_pico_untrained" in shown


@pytest.mark.parametrize("environment", [ASCII, LATIN], ids=["ascii", "latin-1"])
def test_recipes_are_listed_and_read_as_utf_8_in_every_locale(tmp_path, environment):
    (tmp_path / "r.yaml").write_text("base: smoke\ndescription: Straße – Übung\n", encoding="utf-8")
    training = [sys.executable, "-m", "midway_hub.training"]
    assert "smoke" in ran([*training, "recipes"], environment)
    assert "learning rate" in ran([*training, "pretrain", "r.yaml", "--dry-run"], environment, cwd=tmp_path)
