"""The order of files by the numbers in their names, and which of a folder's frames are one video's.

Order is natural everywhere: text as text without regard to capitals, runs of digits as the numbers that they are. A
dot between digits parts two numbers, as in versions (`v1.9`, `v1.10`). A minus is a sign at the start of a name and
after one of `_ ( [ =`, and a hyphen elsewhere (`clip-2` comes before `clip-10`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

NUMBER = re.compile(r"((?:(?<![^_(\[=])-)?\d+)")
SUFFIX = re.compile(r"\.[^\W\d]\w*$")  # `.png`, not the `.10` of `v1.10`
DATE = re.compile(r"(?<!\d)(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])(?!\d)")
_YEAR_LAST = re.compile(r"(?<!\d)\d\d?([-_.])\d\d?\1(?:19|20)\d\d(?!\d)")
_DIGITS = str.maketrans("123456789", "0" * 9)
LEAST_FRAMES = 3
"""Files named unlike all others that are fewer than this are strays, no video."""
EPOCH_DIGITS = 9
"""Digits from which a number followed by others after `_` or `-` is taken for seconds and their fraction."""


def natural_key(name: str) -> tuple[Any, ...]:
    """Sort key of a file's name: by its stem, numbers as numbers, then by its suffix."""
    stem, suffix = _split(name)
    return _comparable(stem), suffix.lower(), name


def natural_path_key(path: str) -> tuple[Any, ...]:
    """Sort key of a path with `/`: folder by folder, each as a name, then by the file's name."""
    folder, _, name = path.rpartition("/")
    return (*_folder_key(folder), natural_key(name))


@lru_cache(maxsize=1024)
def _folder_key(folder: str) -> tuple[Any, ...]:
    return tuple((_comparable(part), "", part) for part in folder.split("/") if part)


@dataclass(frozen=True)
class Series:
    """Frames of one video, in order.

    Attributes:
        form: What their names have in common, such as `left_*.png`.
        names: Of the files.
        numbers: The number that counts them, if there is one, which increases.
        stamps: The number that may be their time, if there is one: the last that increases.
        decimals: How many digits of `stamps` are behind the point, as in `1305031102.175304`.
    """

    form: str
    names: tuple[str, ...]
    numbers: tuple[int, ...] | None = None
    stamps: tuple[int, ...] | None = None
    decimals: int = 0


def series_of(names: Iterable[str]) -> tuple[list[Series], list[str]]:
    """Tell which of a folder's frames belong to one video.

    Files whose names differ in numbers alone are one video. Where several numbers change and none counts all of them,
    such as `cam0_17` and `cam1_17`, each value of the others is a video, unless they are dates and times of day. Names
    that begin with numbers that are all different are one video whatever follows; so are names without any digits.

    Args:
        names: Of files in one folder.

    Returns:
        The videos in natural order; and the strays, which are named unlike the others.

    Raises:
        ValueError: The names give no order, or two of them are the same frame; the message names them.
    """
    ordered = _in_order(names)
    split = [NUMBER.split(_split(name)[0]) for name in ordered]
    forms = {tuple(parts[::2]) for parts in split}
    if all(len(parts) == 1 for parts in split) or (len(ordered) < LEAST_FRAMES and len(forms) > 1):
        return [Series("*", tuple(ordered))], []
    first = [int(parts[1]) if len(parts) > 1 and not parts[0] else None for parts in split]
    if None not in first and len(set(first)) == len(first):
        rows = [(parts[1],) for parts in split]
        if len(forms) > 1:
            return [_counted(ordered, rows, (0, 0), [""])], []
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, parts in enumerate(split):
        groups.setdefault(tuple(parts[::2]), []).append(place)
    kept = {texts: places for texts, places in groups.items() if len(places) >= LEAST_FRAMES or len(groups) == 1}
    strays = [ordered[place] for texts, places in groups.items() if texts not in kept for place in places]
    if len(strays) * 2 > len(ordered):
        raise ValueError(f"their names give no order: {', '.join(ordered[:3])}, ...; rename them to numbers")
    found: list[Series] = []
    for texts, places in kept.items():
        found += _of_one_form([ordered[place] for place in places], [split[place][1::2] for place in places], [*texts])
    return found, strays


def one_series(names: Iterable[str]) -> Series:
    """Take a folder's frames for one video.

    Raises:
        ValueError: They are several, or some are named unlike the others; and as `series_of`.
    """
    names = list(names)
    found, strays = series_of(names)
    if strays:
        raise ValueError(
            f"{len(strays)} of {len(names)} are named unlike the others ({', '.join(strays[:3])}); move them elsewhere"
        )
    if len(found) > 1:
        forms = ", ".join(f"{item.form} ({len(item.names)})" for item in found[:4])
        raise ValueError(f"they are frames of {len(found)} videos: {forms}; give each a folder of its own")
    return found[0]


def _of_one_form(names: list[str], rows: list[list[str]], texts: list[str]) -> list[Series]:
    """Part frames whose names differ in numbers alone into videos."""
    if len({found and found.group() for found in map(_YEAR_LAST.search, names)}) > 1:
        raise ValueError(
            f"their dates end with the year and give no order: {', '.join(names[:3])}, ...; write them as 2024-01-31"
        )
    _refuse_either_decimals_or_versions(names, rows, texts)
    rows, texts, decimals = _with_fractions(rows, texts)
    columns = [[int(value) for value in column] for column in zip(*rows, strict=True)]
    varying = [place for place, column in enumerate(columns) if len(set(column)) > 1]
    if not varying:
        _refuse_doubles(names, columns[0])
        return [Series(names[0], tuple(names), tuple(columns[0]), tuple(columns[0]), decimals[0])]
    counting = [place for place in varying if _increases(columns[place])]
    if counting:
        ends = counting[0], counting[-1]
        return [_counted(names, rows, ends, texts, decimals[ends[1]])]
    counter = max(varying, key=lambda place: (len(set(columns[place])), place))
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, values in enumerate(zip(*columns, strict=True)):
        groups.setdefault((*values[:counter], *values[counter + 1 :]), []).append(place)
    by_time_of_day = DATE.search(names[0]) is not None and len(set(columns[counter])) < len(names)
    if by_time_of_day or len(groups) * 2 > len(names):
        _refuse_doubles(names, list(zip(*columns, strict=True)))
        return [Series("*", tuple(names))]
    for places in groups.values():  # signed numbers with a fraction are not in the order of their two parts
        places.sort(key=columns[counter].__getitem__)
    return [
        _counted([names[i] for i in places], [rows[i] for i in places], (counter, counter), texts, decimals[counter])
        for places in groups.values()
    ]


def _counted(
    names: list[str], rows: Sequence[Sequence[str]], ends: tuple[int, int], texts: list[str], decimals: int = 0
) -> Series:
    """A video whose frames are counted by one column of numbers and timed by one."""
    numbers, stamps = (tuple(int(row[place]) for row in rows) for place in ends)
    _refuse_doubles(names, numbers)
    alike = [values[0] if len(set(values)) == 1 else "*" for values in zip(*rows, strict=True)]
    form = "".join(text + value for text, value in zip(texts, [*alike, ""], strict=False))
    return Series((form or "*") + _split(names[0])[1], tuple(names), numbers, stamps, decimals)


def _with_fractions(rows: list[list[str]], texts: list[str]) -> tuple[list[list[str]], list[str], list[int]]:
    """Join seconds and their fraction, which has as many digits in every name, to one number."""
    decimals, place = [0] * len(rows[0]), 0
    while place + 1 < len(rows[0]):
        digits = {len(row[place + 1]) for row in rows}
        both = all(len({row[column] for row in rows}) > 1 for column in (place, place + 1))
        epoch = texts[place + 1] in ("_", "-") and all(len(row[place]) >= EPOCH_DIGITS for row in rows)
        if both and len(digits) == 1 and (texts[place + 1] == "." or epoch) and rows[0][place + 1].isdecimal():
            rows = [[*row[:place], row[place] + row[place + 1], *row[place + 2 :]] for row in rows]
            texts = [*texts[: place + 1], *texts[place + 2 :]]
            decimals = [*decimals[:place], decimals[place] + digits.pop(), *decimals[place + 2 :]]
        else:
            place += 1
    return rows, texts, decimals


def _refuse_either_decimals_or_versions(names: list[str], rows: list[list[str]], texts: list[str]) -> None:
    """Refuse `0.1, 0.15, 0.2`, which in versions come in another order; `1.9, 1.10` can be nothing else than those."""
    for place in range(len(rows[0]) - 1):
        ends = [row[place + 1] for row in rows]
        written_out = any(len(end) > 1 and end.endswith("0") for end in ends)
        if texts[place + 1] != "." or written_out or len(set(map(len, ends))) == 1:
            continue
        as_decimals = [(row[:place], float(f"{row[place]}.{end}")) for row, end in zip(rows, ends, strict=True)]
        if as_decimals != sorted(as_decimals):
            raise ValueError(
                f"their numbers may be decimals or versions, which are of different order: {', '.join(names[:3])}, "
                "...; write as many digits behind every point"
            )


def _refuse_doubles(names: Sequence[str], numbers: Sequence[Any]) -> None:
    for number, count in Counter(numbers).items():
        if count > 1:
            same = [name for name, other in zip(names, numbers, strict=True) if other == number]
            raise ValueError(f"frames are doubled: {' and '.join(same[:2])} have one number; take one kind of them")


def _increases(numbers: Sequence[int]) -> bool:
    return all(earlier < later for earlier, later in pairwise(numbers))


def _split(name: str) -> tuple[str, str]:
    """Part a name into stem and suffix; a dot before a digit, as in `v1.10`, begins no suffix."""
    match = SUFFIX.search(name, 1)
    return (name[: match.start()], match[0]) if match else (name, "")


def _comparable(text: str) -> list[str | int]:
    """Text and numbers in turn, so that text is compared with text and numbers with numbers."""
    parts: list[Any] = NUMBER.split(text.casefold())
    parts[1::2] = map(int, parts[1::2])
    return parts


def _in_order(names: Iterable[str]) -> list[str]:
    """Sort names naturally; those that are padded with zeros, the many, as text, which is the same and quick."""
    names = list(names)
    padded = len({name.translate(_DIGITS) for name in names}) == 1 and "-" not in names[0]
    return sorted(names, key=None if padded else natural_key)
