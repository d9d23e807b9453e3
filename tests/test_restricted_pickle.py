"""A checkpoint is read as data: whatever its pickle asks for, nothing runs, nothing is imported, nothing explodes."""

from __future__ import annotations

import argparse
import contextlib
import copyreg
import io
import os
import pickle
import struct
import sys
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from midway_hub.convert.archive import TorchArchive
from midway_hub.convert.records import (
    ConversionError,
    Global,
    Record,
    Storage,
    StoredTensor,
    UnsafePickleError,
    call,
    unwrap,
)
from midway_hub.convert.restricted_pickle import MAX_PICKLE_BYTES, load_data

PROTOCOL_2 = b"\x80\x02"


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def number(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little")


def calls(module: str, attribute: str, *arguments: bytes) -> bytes:
    """A value in a pickle that is the result of a call."""
    return name(module, attribute) + b"(" + b"".join(arguments) + b"tR"


def pickled(value: bytes) -> bytes:
    return PROTOCOL_2 + value + b"."


def archive_bytes(data: bytes, records: dict[str, bytes] | None = None, root: str = "archive") -> bytes:
    """A file of torch.save made by hand: a zip of stored records."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{root}/data.pkl", data)
        for record, content in {"byteorder": b"little", "version": b"3\n", **(records or {})}.items():
            archive.writestr(f"{root}/{record}", content)
    return buffer.getvalue()


def load(path: Path, content: bytes | None = None) -> object:
    if content is not None:
        path.write_bytes(content)
    with TorchArchive(path) as archive:
        return archive.load()


def stored_tensor(
    numel: int, shape: int, *, stride: int = 1, offset: int = 0, key: str = "0", kind: str = "FloatStorage"
) -> bytes:
    """A pickle of one tensor whose sizes are whatever one likes."""
    storage = b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(numel) + b"tQ"
    sizes = number(offset) + number(shape) + b"\x85" + number(stride) + b"\x85"
    return pickled(calls("torch._utils", "_rebuild_tensor_v2", storage, sizes, b"\x89}"))


def read_tensor(path: Path, content: bytes) -> torch.Tensor:
    path.write_bytes(content)
    with TorchArchive(path) as archive:
        return archive.read(archive.load())


@pytest.fixture
def extension_code() -> Iterator[int]:
    copyreg.add_extension("posix", "system", 0x42)
    yield 0x42
    copyreg.remove_extension("posix", "system", 0x42)


# Each makes a pickle that creates the file `sentinel` when it is unpickled, and says what it is refused for.
LIVE: dict[str, tuple[Callable[[str], bytes], str]] = {
    "os.system": (lambda s: pickled(calls("posix", "system", text(f"touch {s}"))), "run posix.system"),
    "subprocess.Popen": (
        lambda s: pickled(calls("subprocess", "Popen", b"]" + text("touch") + b"a" + text(s) + b"a")),
        "run subprocess.Popen",
    ),
    "eval": (lambda s: pickled(calls("__builtin__", "eval", text(f"open({s!r}, 'w')"))), "run builtins.eval"),
    "exec": (lambda s: pickled(calls("__builtin__", "exec", text(f"open({s!r}, 'w')"))), "run builtins.exec"),
    "open": (lambda s: pickled(calls("io", "open", text(s), text("w"))), "run io.open"),
    "getattr": (
        lambda s: pickled(
            calls(
                "__builtin__",
                "getattr",
                calls("__builtin__", "getattr", name("os", "path"), text("os")),
                text("system"),
            )
            + b"("
            + text(f"touch {s}")
            + b"tR"
        ),
        "run builtins.getattr",
    ),
    "in a dictionary's value": (
        lambda s: pickled(b"}" + text("a") + calls("posix", "system", text(f"touch {s}")) + b"s"),
        "run posix.system",
    ),
    "in an object's state": (
        lambda s: pickled(
            name("argparse", "Namespace")
            + b")\x81}"
            + text("arch")
            + calls("posix", "system", text(f"touch {s}"))
            + b"sb"
        ),
        "run posix.system",
    ),
    "opcode INST": (lambda s: b"(S'touch " + s.encode() + b"'\niposix\nsystem\n.", "run posix.system"),
    "opcode OBJ": (lambda s: b"(cposix\nsystem\nS'touch " + s.encode() + b"'\no.", "run posix.system"),
    "dotted STACK_GLOBAL": (
        lambda s: b"\x80\x04" + text("os") + text("path.os.system") + b"\x93" + text(f"touch {s}") + b"\x85R.",
        "run os.path.os.system",
    ),
    "opcode EXT1": (lambda s: b"\x80\x02\x82\x42" + text(f"touch {s}") + b"\x85R.", "opcode EXT1"),
    "a planted __setstate__": (
        lambda s: pickled(
            name("argparse", "Namespace")
            + b")\x81}"
            + text("__setstate__")
            + name("posix", "system")
            + b"sb"
            + text(f"touch {s}")
            + b"b"
        ),
        "set the state of argparse.Namespace twice",
    ),
    "NEWOBJ of a partial": (
        lambda s: pickled(
            name("functools", "partial") + name("posix", "system") + text(f"touch {s}") + b"\x86\x81" + b")R"
        ),
        "call a value of type Record",
    ),
    "import of a module": (
        lambda s: pickled(calls("__builtin__", "__import__", text("midway_side_effect"))),
        "run builtins.__import__",
    ),
    "name of a class": (
        lambda s: pickled(calls("midway_side_effect", "Thing")),
        "run midway_side_effect.Thing",
    ),
}


@pytest.fixture
def sentinel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that only running something creates; importing `midway_side_effect` is one of the ways."""
    path = tmp_path / "something-ran"
    modules = tmp_path / "modules"
    modules.mkdir()
    source = f"from pathlib import Path\nPath({str(path)!r}).touch()\nclass Thing: pass\n"
    (modules / "midway_side_effect.py").write_text(source)
    monkeypatch.syspath_prepend(str(modules))
    return path


@pytest.mark.skipif(os.name != "posix", reason="the attacks call the posix module")
@pytest.mark.parametrize("attack", LIVE)
def test_pickle_that_runs_something_is_refused_by_name_and_does_not_run(
    attack: str, sentinel: Path, tmp_path: Path, extension_code: int
) -> None:
    make, refusal = LIVE[attack]
    data = make(str(sentinel))
    load(tmp_path / "harmless.pth", archive_bytes(pickled(b"}")))  # zipfile itself loads a codec the first time
    modules = set(sys.modules)
    with pytest.raises(UnsafePickleError) as caught:
        load(tmp_path / "evil.pth", archive_bytes(data))
    assert refusal in str(caught.value)
    assert str(tmp_path / "evil.pth") in str(caught.value)
    assert "Nothing was run" in str(caught.value)
    assert set(sys.modules) == modules
    assert not sentinel.exists()

    # The attack is a real one: Python's own unpickler falls for it.
    with contextlib.suppress(Exception):
        result = pickle.loads(data)
        if hasattr(result, "wait"):
            result.wait()
    sys.modules.pop("midway_side_effect", None)
    assert sentinel.exists()


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        (calls("torch.serialization", "load", text("other.pth")), "run torch.serialization.load"),
        (calls("torch.hub", "load", text("user/repo"), text("model")), "run torch.hub.load"),
        (calls("torch._utils", "_rebuild_qtensor"), "run torch._utils._rebuild_qtensor"),
        (calls("functools", "reduce", name("__builtin__", "eval"), b"]"), "run functools.reduce"),
        (calls("_operator", "getitem", name("os", "environ"), text("HOME")), "run operator.getitem"),
        (calls("__builtin__", "type", text("A"), b")", b"}"), "run builtins.type"),
        (name("torch", "Size") + b"}" + text("__call__") + name("posix", "system") + b"sb", "change torch.Size"),
        (b"K\x01)R", "call a value of type int"),
        (b"K\x01)\x81", "make an object of a int"),
        (text("posix.system") + b"Q", "fetch something else than a tensor's storage"),
        (b"(" + text("module") + name("os", "system") + text("x") + text("cpu") + b"K\x01tQ", "fetch something else"),
        (b"Pposix.system\n", "opcode PERSID"),
        (b"\x97", "opcode NEXT_BUFFER"),
        (calls("evil\x1b[2J" + "x" * 500, "run"), "run evil\\x1b[2Jxxx"),
    ],
)
def test_unusual_request_of_a_pickle_is_refused(value: bytes, refusal: str) -> None:
    with pytest.raises(UnsafePickleError) as caught:
        load_data(pickled(value))
    assert refusal in str(caught.value)
    assert len(str(caught.value)) < 500


def test_objects_of_any_class_are_read_without_importing_the_module(sentinel: Path, tmp_path: Path) -> None:
    data = pickled(name("midway_side_effect", "Thing") + b")\x81}" + text("arch") + text("vit_small") + b"sb")
    thing = load(tmp_path / "a.pth", archive_bytes(data))
    assert isinstance(thing, Record)
    assert str(thing.type) == "midway_side_effect.Thing"
    assert unwrap(thing) == {"arch": "vit_small"}
    assert "midway_side_effect" not in sys.modules
    assert not sentinel.exists()


class Slotted:
    __slots__ = ("arch",)
    arch: str


class Settings(dict):
    pass


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_values_are_read_as_python_does_at_every_protocol(protocol: int) -> None:
    value = {
        "numbers": [0, -1, 255, 65536, 1 << 40, -(1 << 70), 1.5, True, False, None],
        "text": ("", "a\nb", "\u00e4\U0001f600", "x" * 300),
        "nested": OrderedDict(a=[(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)], b={}),
    }
    assert load_data(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_objects_are_unwrapped_to_what_they_hold(protocol: int) -> None:
    slotted = Slotted()
    slotted.arch = "vit_small"
    for value in (argparse.Namespace(arch="vit_small"), Settings(arch="vit_small"), slotted):
        if protocol < 2 and value is slotted:
            continue  # Python itself refuses to pickle slots there
        assert unwrap(load_data(pickle.dumps(value, protocol))) == {"arch": "vit_small"}


def test_values_that_other_libraries_leave_in_checkpoints_are_inert(tmp_path: Path) -> None:
    value = {
        "numpy": (np.float64(0.5), np.arange(3)),
        "torch": (torch.device("cpu"), torch.float16, torch.Size([1, 2])),
        "python": (PurePosixPath("/a"), b"bytes", bytearray(b"b"), 1j, range(3), type(None), int | str, list[int]),
        "set": {1},
    }
    torch.save(value, tmp_path / "a.pth")
    read = load(tmp_path / "a.pth")
    assert isinstance(read, dict)
    assert read["torch"][1:] == (Global("torch", "float16"), (1, 2))
    assert read["set"] == [1]
    assert all(isinstance(item, Record) for item in (*read["numpy"], *read["python"]))


def test_an_object_that_holds_itself_ends() -> None:
    data = pickled(name("omegaconf", "AnyNode") + b")\x81q\x00}" + text("_val") + b"h\x00sb")
    assert unwrap(load_data(data)) is None


def test_tensors_are_read_as_torch_reads_them(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    value = {
        "plain": base,
        "transposed": base.T,
        "slice": base[1:3, ::2],
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "double": base.double(),
        "parameter": torch.nn.Parameter(torch.ones(3)),
    }
    torch.save(value, tmp_path / "a.pth")
    with TorchArchive(tmp_path / "a.pth") as archive:
        for key, stored in archive.load().items():
            tensor = archive.read(stored)
            assert tensor.is_contiguous()
            assert tensor.dtype == value[key].dtype
            assert torch.equal(tensor, value[key].detach())


def test_signs_that_torch_turns_lazily_are_turned(tmp_path: Path) -> None:
    base = torch.arange(1.0, 13.0).reshape(3, 4)
    pairs = torch.complex(base, 2 * base)
    value = {
        "negative": torch._neg_view(base),
        "part of it": torch._neg_view(base)[1:, ::2],
        "turned": torch._neg_view(base).T,
        "half": torch._neg_view(base.half()),
        "parameter": torch.nn.Parameter(torch._neg_view(base)),
        "imaginary part of a conjugate": pairs.conj().imag,
        "twice": torch._neg_view(torch._neg_view(base)),
        "zeros": torch._neg_view(torch.zeros(3)),
    }
    assert value["imaginary part of a conjugate"].is_neg()
    torch.save(value, tmp_path / "a.pth")
    with TorchArchive(tmp_path / "a.pth") as archive:
        for key, stored in archive.load().items():
            tensor, wanted = archive.read(stored), value[key].detach().resolve_neg()
            assert torch.equal(tensor, wanted), key
            assert torch.equal(tensor.signbit(), wanted.signbit()), key


def test_a_conjugate_is_not_taken_for_its_storage(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3, dtype=torch.complex64).conj()}, tmp_path / "a.pth")
    with TorchArchive(tmp_path / "a.pth") as archive, pytest.raises(ConversionError, match="conjugate of its storage"):
        archive.load()


@pytest.mark.parametrize("notes", [{"lazy": True}, {"neg": 1}, {"neg": "yes", "conj": False}, [True], "neg"])
def test_notes_on_a_tensor_that_are_not_known_are_refused(notes: object) -> None:
    with pytest.raises(ConversionError, match="carries notes that no version of torch is known to write"):
        call(
            Global("torch._utils", "_rebuild_tensor_v2"),
            (Storage("0", Global("torch", "FloatStorage"), 3), 0, (3,), (1,), False, OrderedDict(), notes),
        )


@pytest.mark.parametrize(
    "value",
    [1 << 1025, -(1 << 5000), {1 << 100_000: 1}, {(1, 1 << 9999): 1}, [{"a": 1 << 2000}]],
    ids=["value", "negative", "key", "in a key", "deep"],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_whole_numbers_that_take_long_to_hash_are_refused(value: object, protocol: int) -> None:
    with pytest.raises(ConversionError, match=r"holds a whole number of .* bits; wanted at most 1024"):
        load_data(pickle.dumps(value, protocol))


def test_a_huge_whole_number_that_is_named_often_costs_no_time() -> None:
    huge = b"\x8b" + struct.pack("<i", 1 << 20) + b"\x01" * (1 << 20)  # LONG4 of a megabyte
    with pytest.raises(ConversionError, match="whole number"):  # hashing it each time takes minutes
        load_data(pickled(b"}" + huge + b"q\x000" + b"h\x00K\x01s" * 100_000))


def test_whole_numbers_of_seeds_and_sizes_are_read() -> None:
    for value in (1 << 1023, -(1 << 1000), 2**128 - 1, {2**64: 2**96}):
        assert load_data(pickle.dumps(value, 2)) == value


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    with TorchArchive(tmp_path / "a.pth") as archive:
        assert torch.equal(archive.read(archive.load()["a"]), torch.ones(3))


@pytest.mark.parametrize(
    ("data", "record", "refusal"),
    [
        (stored_tensor(1 << 40, 1 << 40), 8, "has 8 bytes; wanted 4398046511104"),
        (stored_tensor(2, 1 << 40), 8, "does not fit its storage of 2 elements"),
        (stored_tensor(2, 1 << 40, stride=0), 8, "does not fit its storage of 2 elements"),
        (stored_tensor(2, 2, offset=1), 8, "does not fit its storage of 2 elements"),
        (stored_tensor(2, 2, stride=5), 8, "does not fit its storage of 2 elements"),
        (stored_tensor(2, 2), 4, "has 4 bytes; wanted 8"),
        (stored_tensor(2, 2), 800, "has 800 bytes; wanted at most 8"),
        (stored_tensor(2, 2, key="../../etc/passwd"), 8, "has no record data/../../etc/passwd"),
        (stored_tensor(2, 2, kind="LongStorage"), 16, "dtype long; wanted one of float64"),
    ],
)
def test_tensor_that_lies_about_its_size_is_refused_without_allocating_it(
    tmp_path: Path, data: bytes, record: int, refusal: str
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ConversionError, match=refusal):
            read_tensor(tmp_path / "a.pth", archive_bytes(data, {"data/0": bytes(record)}))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_tensor_of_negative_size_is_refused(tmp_path: Path) -> None:
    data = stored_tensor(2, 2).replace(number(2) + b"\x85", b"\x8a\x01\xff\x85")
    with pytest.raises(ConversionError, match="not made of whole numbers"):
        read_tensor(tmp_path / "a.pth", archive_bytes(data, {"data/0": bytes(8)}))


MANY = b"(" + b"K\x01" * 20_000 + b"t"
BOMBS = {
    "bytearray of a terabyte": pickled(calls("__builtin__", "bytearray", number(1 << 40))),
    "memo slot four billion": pickled(b"K\x01r\xff\xff\xff\xff"),
    "copies of a large tuple": pickled(MANY + b"q\x00" + b"".join([calls("__builtin__", "set", b"h\x00")] * 5_000)),
    "records of a large tuple": pickled(
        MANY + b"q\x00" + name("__builtin__", "bytearray") + b"q\x01" + b"h\x01h\x00R" * 50_000
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_pickle_that_asks_for_huge_memory_does_not_get_it(bomb: str) -> None:
    tracemalloc.start()
    try:
        load_data(BOMBS[bomb])
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8d" + (1 << 60).to_bytes(8, "little") + b"abc.",
        b"\x80\x05\x96" + (1 << 60).to_bytes(8, "little") + b"abc.",
        b"\x80\x04\x95" + (1 << 60).to_bytes(8, "little") + b"K",
        b"\x80\x02\x8b\xff\xff\xff\x7fabc.",
    ],
)
def test_pickle_of_huge_declared_lengths_is_damaged(data: bytes) -> None:
    with pytest.raises(ConversionError, match="damaged"):
        load_data(data)


def test_nested_tuples_as_keys_are_refused_before_they_are_hashed() -> None:
    doubled = b"K\x01" + b"q\x00h\x00\x86" * 64
    started = time.perf_counter()
    with pytest.raises(ConversionError, match="uses a tuple as a dictionary key"):
        load_data(pickled(b"}" + doubled + b"K\x01s"))
    assert time.perf_counter() - started < 5


def test_deep_nesting_is_read_without_recursion(tmp_path: Path) -> None:
    depth = 100_000
    value = load_data(pickled(b"]" * depth + b"a" * (depth - 1)))
    for _ in range(depth - 1):
        assert isinstance(value, list)
        value = value[0]
    assert value == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02t.",
        b"\x80\x02h\x07.",
        b"\x80\x02K\x01\x86.",
        b"\x80\x02]K\x01K\x02s.",
        b"\x80\x02}K\x01a.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02\xff.",
        b"I12x\n.",
        pickled(name("collections", "OrderedDict") + b"K\x01R"),
        pickled(calls("torch._utils", "_rebuild_tensor_v2")),
        pickled(calls("torch._utils", "_rebuild_tensor_v2", b"NNNN")),
        pickled(calls("torch._utils", "_rebuild_parameter", b"N")),
    ],
)
def test_damaged_pickle_is_a_clear_error(data: bytes) -> None:
    with pytest.raises(ConversionError, match="damaged"):
        load_data(data)


def test_every_truncation_of_a_real_pickle_is_a_clear_error() -> None:
    data = pickle.dumps({"a": [1, "b", (2.0, None)], "n": argparse.Namespace(arch="vit_small")}, 2)
    for length in range(len(data)):
        with pytest.raises(ConversionError):
            load_data(data[:length])


def test_random_damage_never_escapes_as_another_error() -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3), "n": argparse.Namespace(arch="vit_small"), "l": [np.float64(1)]}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        data = archive.read("archive/data.pkl")
    generator = np.random.RandomState(0)
    for _ in range(3000):
        damaged = bytearray(data)
        for position in generator.randint(0, len(data), size=3):
            damaged[position] = generator.randint(256)
        with contextlib.suppress(ConversionError):
            load_data(bytes(damaged))


def test_oversized_pickle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=f"wanted at most {MAX_PICKLE_BYTES}"):
        load(tmp_path / "a.pth", archive_bytes(pickled(text("x" * MAX_PICKLE_BYTES))))
    with pytest.raises(ConversionError, match=f"at most {MAX_PICKLE_BYTES} are read"):
        load_data(b"N" * (MAX_PICKLE_BYTES + 1))


# Files that are something else.


def legacy_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def zip_of(*records: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for record, content in records:
            archive.writestr(record, content)
    return buffer.getvalue()


EMPTY_PICKLE = pickled(b"}")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("make", "refusal"),
    [
        (lambda: b"", r"is empty \(0 bytes\)"),
        (lambda: b"not a checkpoint\n", "starts with b'not a ch'"),
        (lambda: b"\n<!DOCTYPE html><html>404</html>", "is a web page"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (legacy_file, r"re-save it: `torch.save\(torch.load"),
        (lambda: pickled(b"}"), "wanted a file of torch.save"),
        (lambda: archive_bytes(EMPTY_PICKLE)[:-40], "is truncated or damaged"),
        (lambda: archive_bytes(EMPTY_PICKLE)[:60], "is truncated or damaged"),
        (lambda: zip_of(("a.txt", b"a")), "0 records called data.pkl"),
        (lambda: zip_of(("a/data.pkl", EMPTY_PICKLE), ("b/data.pkl", EMPTY_PICKLE)), "2 records called data.pkl"),
        (lambda: zip_of(("a/data.pkl", EMPTY_PICKLE), ("a/data.pkl", EMPTY_PICKLE)), "two records of the same name"),
        (lambda: zip_of(("a/data.pkl", EMPTY_PICKLE), compression=zipfile.ZIP_DEFLATED), "compressed or encrypted"),
        (lambda: archive_bytes(EMPTY_PICKLE, {"constants.pkl": b""}), "is a TorchScript program"),
        (lambda: archive_bytes(EMPTY_PICKLE, {"byteorder": b"big"}), "big-endian"),
        (lambda: archive_bytes(EMPTY_PICKLE, {"byteorder": b"little"}).replace(EMPTY_PICKLE, b"\x80\x02]."), "damaged"),
    ],
)
def test_file_that_is_no_checkpoint_says_what_it_is(make: Callable[[], bytes], refusal: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=refusal) as caught:
        load(tmp_path / "a.pth", make())
    assert str(tmp_path / "a.pth") in str(caught.value)


def test_safetensors_file_needs_no_conversion(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(ConversionError, match="needs no conversion, load it directly"):
        load(tmp_path / "a.pth")


def test_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="is a folder"):
        load(tmp_path)


def test_damaged_tensor_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    torch.save({"a": torch.full((100,), 7.0)}, tmp_path / "a.pth")
    content = bytearray((tmp_path / "a.pth").read_bytes())
    content[content.index(struct.pack("<f", 7.0) * 100) + 9] ^= 1
    (tmp_path / "a.pth").write_bytes(content)
    with TorchArchive(tmp_path / "a.pth") as archive:
        stored = archive.load()["a"]
        assert isinstance(stored, StoredTensor)
        with pytest.raises(ConversionError, match=r"record data/0 is damaged\. Fetch the file again"):
            archive.read(stored)


def test_directory_that_declares_more_than_the_file_is_refused(tmp_path: Path) -> None:
    content = bytearray(archive_bytes(EMPTY_PICKLE, {"data/0": bytes(8)}))
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    with pytest.raises(ConversionError, match="declares records of more"):
        load(tmp_path / "a.pth", bytes(content))
