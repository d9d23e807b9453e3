"""YAML as recipes, overrides and run directories hold it: one reading, that of YAML 1.2's core schema.

Numbers are `12`, `0x1f`, `0o17`, `0.02`, `2e-2`, `.5`, `4.`, `.inf` and `.nan`; truth values are `true` and `false`;
`null`, `~` and an empty value are nothing. All else is text: `yes`, `1_000`, `12:30:00` and dates too. A key stands
once in a mapping, at every depth; no value holds itself, and aliases of aliases do not multiply without end.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
_CORE = (  # with the characters that each begins with; what looks like both is a whole number
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")),
    ("null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    ("merge", re.compile(r"<<\Z"), ["<"]),
)


_MOST_VALUES = 1_000_000  # with every alias written out


class YamlError(ValueError):
    """Text that is no YAML, or holds a key twice; the message says where."""


def parse_yaml(text: str, where: str) -> Any:
    """Read YAML.

    Args:
        text: One document.
        where: What errors call it, such as a file's path.

    Returns:
        Plain data.

    Raises:
        YamlError: It is no YAML, a key stands twice in a mapping, or aliases have no end; the message names the lines.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
        raise YamlError(f"{where} is no YAML{place}: {error.problem or error.context}{_advice(error)}") from None
    except yaml.reader.ReaderError as error:
        seen = f"the character {chr(error.character)!r}" if isinstance(error.character, int) else "bytes"
        raise YamlError(f"{where} is no YAML: {seen} at position {error.position} is not allowed in text") from None
    except (_DoubledKeyError, _EndlessError) as error:
        raise YamlError(f"{where}: {error}") from None
    except (ValueError, OverflowError) as error:  # such as a number of more digits than Python reads
        raise YamlError(f"{where} is no YAML that can be read: {error}") from None
    except (LookupError, TypeError, AttributeError):  # PyYAML's, of `!!bool maybe` and `!!timestamp noon`
        raise YamlError(f"{where} is no YAML that can be read: a value is not what its !!tag says") from None
    except RecursionError:
        raise YamlError(f"{where} is nested too deeply to be read") from None


def read_yaml(path: Path) -> Any:
    """Read a YAML file, which is UTF-8 whatever the locale; see `parse_yaml`.

    Raises:
        YamlError: It is no UTF-8, no YAML, or holds a key twice; the message names the file.
        OSError: There is no such file.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        raise YamlError(f"{path} is no UTF-8 text (byte {error.start}); save it as UTF-8") from None


def parse_scalar(text: str) -> Any:
    """Read what is no list or mapping: a number, a truth value, nothing, or else the text as it is."""
    stripped = text.strip()
    kind = _Loader.scalar_kind(stripped)
    if kind not in ("int", "float", "bool", "null"):
        return text
    return parse_yaml(stripped, repr(text))


def dump_yaml(value: Any) -> str:
    """Write plain data as YAML that `parse_yaml`, and every reader of YAML 1.1, reads back as it was."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def flow_yaml(value: Any) -> str:
    """Write plain data on one line, as it can stand behind `key: `."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _advice(error: yaml.MarkedYAMLError) -> str:
    if "alias" in f"{error.problem} {error.context}" or "an anchor" in str(error.context):
        return "; text that begins with * or & needs quotes"
    return "; YAML is indented with spaces" if "\\t" in str(error.problem) else ""


class _DoubledKeyError(yaml.YAMLError):
    def __init__(self, key: str, first: int, second: int) -> None:
        lines = f"in lines {first} and {second}" if first != second else f"in line {first}"
        super().__init__(
            f"the key {key!r} stands twice, {lines}; the first would be lost: put both together, or rename one"
        )


class _EndlessError(yaml.YAMLError):
    """Aliases that a few lines make into more than can be held."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # in place of PyYAML's own, those of YAML 1.1

    @classmethod
    def scalar_kind(cls, text: str) -> str | None:
        candidates = cls.yaml_implicit_resolvers.get(text[:1], [])
        return next((tag.removeprefix(_TAG) for tag, pattern in candidates if pattern.match(text)), None)

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _refuse_endless(node, {})
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if (key.tag, key.value) in lines:
                raise _DoubledKeyError(key.value, lines[key.tag, key.value], line)
            lines[key.tag, key.value] = line
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 takes for something else."""


def _refuse_endless(node: yaml.Node, sizes: dict[int, int | None]) -> int:
    """Return how many values a node holds, each alias counted as often as it is used."""
    if id(node) not in sizes:
        sizes[id(node)] = None  # until all that it holds is counted
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        held = [part for item in parts for part in (item if isinstance(item, tuple) else (item,))]
        sizes[id(node)] = 1 + sum(_refuse_endless(part, sizes) for part in held)
    size, line = sizes[id(node)], node.start_mark.line + 1
    if size is None:
        raise _EndlessError(f"the value in line {line} holds itself by an alias; write out what it should hold")
    if size > _MOST_VALUES:
        raise _EndlessError(
            f"the value in line {line} holds more than {_MOST_VALUES:,} values, counting every alias; write out what "
            "is needed"
        )
    return size


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = node.value
    base = {"0x": 16, "0o": 8}.get(text[:2], 10)
    return int(text if base == 10 else text[2:], base)


for _name, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, _first)
    if _name in ("int", "float"):
        _Dumper.add_implicit_resolver(_TAG + _name, _pattern, _first)
_Loader.add_constructor(_TAG + "int", _whole_number)
