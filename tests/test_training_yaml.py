"""YAML has one reading here: numbers as in YAML 1.2, text else, and no key twice."""

import pytest
import yaml

from midway_hub.training.yaml_text import YamlError, dump_yaml, parse_scalar, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-2", 0.02),
        ("4e0", 4.0),
        ("1.0e-05", 1e-5),
        (".5", 0.5),
        ("4.", 4.0),
        ("-1.5E+3", -1500.0),
        ("012", 12),
        ("-7", -7),
        ("0x1f", 31),
        ("0o17", 15),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("1_000", "1_000"),
        ("12:30:00", "12:30:00"),
        ("2024-01-01", "2024-01-01"),
        ("yes", "yes"),
        ("off", "off"),
        ("e5", "e5"),
        ("1.5.2", "1.5.2"),
    ],
)
def test_plain_values_are_those_of_yaml_1_2_in_files_and_as_overrides(text, value):
    for read in (parse_yaml(f"key: {text}\n", "file")["key"], parse_scalar(text)):
        assert read == value
        assert type(read) is type(value)


@pytest.mark.parametrize(
    "text", ["*.mov", "*", "#x", "a: b", "&x", "!x", "- x", "? x", "| x", "%", "@x", "`x`", "x #2"]
)
def test_a_value_that_is_none_of_these_is_text_as_it_stands(text):
    assert parse_scalar(text) == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: 1\nb: 2\na: 3\n", "'a' stands twice, in lines 1 and 3"),
        ("m:\n  h: {p: 1, q: 2, p: 3}\n", "'p' stands twice, in line 2"),
        ("- x: 1\n- y: 1\n  z: {k: [{d: 1,\n    d: 2}]}\n", "'d' stands twice, in lines 3 and 4"),
        ("a: 1\n'a': 2\n", "'a' stands twice, in lines 1 and 2"),
        ("data:\n  path: x\nengine: {}\n\ndata: {workers: 2}\n", "'data' stands twice, in lines 1 and 5"),
    ],
)
def test_a_doubled_key_is_an_error_at_every_depth_that_names_both_lines(text, wanted):
    with pytest.raises(YamlError, match=f"mine.yaml: the key {wanted}"):
        parse_yaml(text, "mine.yaml")


def test_a_merged_mapping_may_be_overridden():
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, x: 3}\n"
    assert parse_yaml(text, "file")["c"] == {"x": 3, "y": 1}


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"\0" * 100, r"the character '\\x00' at position 0"),
        (b"a: [1,\nb", "is no YAML in line 2"),
        (b"a: *nobody", "undefined alias"),
        (b"a: !thing 1", "'!thing'"),
        (b"a: \xff", r"no UTF-8 text \(byte 3\)"),
        (b"[" * 5000, "nested too deeply"),
        (b"a: " + b"9" * 5000, "digits"),
    ],
)
def test_what_is_no_yaml_is_one_sentence_with_the_files_name(tmp_path, content, wanted):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(YamlError, match=wanted) as caught:
        read_yaml(tmp_path / "x.yaml")
    assert str(caught.value).startswith(str(tmp_path / "x.yaml"))
    assert "\n" not in str(caught.value)


def test_a_file_is_utf_8_with_or_without_a_mark(tmp_path):
    for start in ("", "\ufeff"):
        (tmp_path / "x.yaml").write_text(f"{start}d: Straße – Übung\n", encoding="utf-8")
        assert read_yaml(tmp_path / "x.yaml") == {"d": "Straße – Übung"}


@pytest.mark.parametrize(
    "value", ["1e5", "2e-2", "012", "08", "0o17", "yes", "~", "", "12:30:00", 1e-5, 3, True, None, [".5"]]
)
def test_what_is_written_reads_back_the_same_by_every_reader(value):
    text = dump_yaml({"key": value})
    assert parse_yaml(text, "file") == {"key": value} == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["a: &x {b: *x}\n", "&x [*x]\n", "a: &x\n  - b: [1, *x]\n", "&x {<<: *x}\n"])
def test_a_value_that_holds_itself_is_refused_in_a_sentence(text):
    with pytest.raises(YamlError, match=r"mine.yaml: the value in line \d+ holds itself by an alias; write out"):
        parse_yaml(text, "mine.yaml")


@pytest.mark.parametrize("many", ["[{}]", "{{<<: [{}]}}", "[[{}], 1]"])
def test_aliases_of_aliases_that_have_no_end_are_refused_before_they_are_written_out(many):
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{n}: &a{n} " + many.format(", ".join([f"*a{n - 1}"] * 10)) for n in range(1, 9)]
    with pytest.raises(YamlError, match=r"line 7 holds more than 1,000,000 values, counting every alias"):
        parse_yaml("\n".join(lines), "mine.yaml")


def test_aliases_that_do_not_multiply_are_what_they_stand_for():
    assert parse_yaml("a: &a [1, 2]\nb: [*a, *a]\nc: &n 3\nd: *n\n", "x") == {
        "a": [1, 2],
        "b": [[1, 2], [1, 2]],
        "c": 3,
        "d": 3,
    }


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("pattern: *.mov\n", "needs quotes"),
        ("pattern: *\n", "needs quotes"),
        ("name: &\n", "needs quotes"),
        ("a: *nothing\n", "needs quotes"),
        ("a:\n\tb: 1\n", "indented with spaces"),
        ("a: !!bool maybe\n", "not what its !!tag says"),
        ("a: !!timestamp noon\n", "not what its !!tag says"),
        ("a: !!int twelve\n", "that can be read: .*twelve"),
    ],
)
def test_what_yaml_takes_for_something_else_is_a_sentence_that_says_what_to_do(text, wanted):
    with pytest.raises(YamlError, match=f"mine.yaml is no YAML.*{wanted}"):
        parse_yaml(text, "mine.yaml")
