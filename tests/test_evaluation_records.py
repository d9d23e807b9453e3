"""The folder of an evaluation: what is damaged in it is named."""

import json

import pytest

from midway_hub._stored import DamagedFileError
from midway_hub.training.evaluation.records import EvaluationRecord


def opened(folder):
    return EvaluationRecord(folder, "per_pair.jsonl", protocol={"data": "x"}, measured={"zero": {"name": "zero"}})


@pytest.fixture
def folder(tmp_path):
    opened(tmp_path / "results").add("zero", 0, epe=1.5)
    return tmp_path / "results"


def test_what_was_measured_is_found_again(folder):
    assert opened(folder)["zero", 0]["epe"] == 1.5


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"", "it is empty"),
        (b"\0" * 30, "30 zero bytes"),
        (b"[1]", "a list, no mapping"),
        (b'{"protocol": {}}', "no 'measured'"),
        (b'{"protocol": {}, "measured": []}', "a list, no mapping"),
        (b'{"protocol": "\xff"}', "byte 14 is no UTF-8 text"),
    ],
)
def test_a_damaged_configuration_is_named_with_what_to_do(folder, content, seen):
    (folder / "configuration.json").write_bytes(content)
    with pytest.raises(DamagedFileError, match=rf"configuration\.json is damaged: .*{seen}; remove the folder"):
        opened(folder)


@pytest.mark.parametrize("line", ["\0\0\0", "[]", '{"index": 3}', "{"])
def test_a_damaged_line_is_named_by_its_number(folder, line):
    items = folder / "per_pair.jsonl"
    items.write_text(items.read_text() + line + "\n" + json.dumps({"measured": "zero", "index": 2}) + "\n")
    with pytest.raises(DamagedFileError, match=r"per_pair\.jsonl is damaged: line 2 is no measurement"):
        opened(folder)
