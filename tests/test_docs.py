import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


RUNS_LONG = ("your_own_data.md",)


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """What of a page is to be run, in order: `python`, and what is marked `bash run`."""
    return re.findall(r"^```(python|bash run)\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def python_blocks(page: Path) -> list[str]:
    return [code for language, code in blocks_of(page) if language == "python"]


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] * (page.name in RUNS_LONG), id=page.name) for page in PAGES],
)
def test_the_code_on_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    names: dict = {}
    blocks = blocks_of(page)
    assert any(language == "python" for language, _ in blocks)
    for language, code in blocks:
        if language == "python":
            exec(compile(code, page.name, "exec"), names)
        else:
            done = subprocess.run(["bash", "-e", "-c", code], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")) if "://" not in link]
    for file, _, heading in (link.partition("#") for link in links):
        target = page.parent / file if file else page
        assert target.exists()
        assert not heading or heading in headings_of(target)


def headings_of(page):
    """The names under which a page's headings are linked to: lower case, blanks as dashes, other signs left out."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_shapes_named_in_the_readme_are_those_it_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    block = python_blocks(ROOT / "README.md")[0]
    exec(compile(block, "README.md", "exec"), {})
    printed = re.findall(r"torch.Size\(\[([\d, ]+)\]\)", capsys.readouterr().out)
    named = re.findall(r"print\(.*?# \(([\d, ]+)\)", block)
    assert printed == named
