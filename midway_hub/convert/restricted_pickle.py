"""Read a pickle as data: an interpreter of its opcodes that can build values and can run nothing.

`pickletools.genops` (standard library) parses the byte stream; this module only says what each opcode means. Names of
classes and functions stay names (`Global`), objects become `Record`s, tensors become `StoredTensor`s that say where
their numbers lie. No name is ever looked up, so there is nothing that a pickle could call, and memory stays
proportional to the size of the pickle.

`torch.load(weights_only=True)` is not enough for files of unknown origin: it calls a few constructors with arguments
that the pickle chooses (`bytearray(10**12)` is allocated), and to name the classes that it does not know it needs a
list that the whole process shares.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from midway_hub.convert.records import (
    ConversionError,
    Global,
    Record,
    Storage,
    call,
    global_name,
    printable,
    refusal,
    set_items,
)

MAX_PICKLE_BYTES = 16 << 20  # the largest release needs less than one MiB; its tensors are not inside the pickle

MAX_INTEGER_BITS = 1024


class _Interpreter:
    """The pickle machine's stack, marks and memo. One method per opcode that is more than a value."""

    values = (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
    constants: dict[str, Callable[[], Any]] = {  # noqa: RUF012
        "NONE": lambda: None,
        "NEWTRUE": lambda: True,
        "NEWFALSE": lambda: False,
        "EMPTY_LIST": list,
        "EMPTY_TUPLE": tuple,
        "EMPTY_DICT": dict,
        "EMPTY_SET": list,
    }

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name in self.values:
                _check_length(argument)
                self.stack.append(argument)
            elif name in self.constants:
                self.stack.append(self.constants[name]())
            elif name == "STOP":
                return self.stack.pop()
            elif name not in ("PROTO", "FRAME"):
                handler = getattr(self, "on_" + name.lower(), None)
                if handler is None:
                    raise refusal(f"carry out opcode {name}, which no checkpoint of tensors holds")
                handler(argument)
        raise ValueError("it has no end")

    def since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.outer.pop()
        return values

    def on_mark(self, _: None) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def on_pop(self, _: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def on_pop_mark(self, _: None) -> None:
        self.since_mark()

    def on_dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    def on_memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def on_put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def on_get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    on_binput = on_long_binput = on_put
    on_binget = on_long_binget = on_get

    def on_tuple(self, _: None) -> None:
        values = self.since_mark()
        self.stack.append(tuple(values))

    def _tuple_of(self, length: int) -> None:
        if len(self.stack) < length:
            raise IndexError(f"a tuple of {length} was asked for where fewer values are left")
        self.stack[-length:] = [tuple(self.stack[-length:])]

    def on_tuple1(self, _: None) -> None:
        self._tuple_of(1)

    def on_tuple2(self, _: None) -> None:
        self._tuple_of(2)

    def on_tuple3(self, _: None) -> None:
        self._tuple_of(3)

    def on_list(self, _: None) -> None:
        values = self.since_mark()
        self.stack.append(values)

    on_frozenset = on_list

    def on_dict(self, _: None) -> None:
        values = self.since_mark()
        self.stack.append({})
        self._set_items(values)

    def on_append(self, _: None) -> None:
        self._extend([self.stack.pop()])

    def on_appends(self, _: None) -> None:
        self._extend(self.since_mark())

    on_additems = on_appends

    def on_setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def on_setitems(self, _: None) -> None:
        self._set_items(self.since_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list | Record):
            raise TypeError(f"a {type(target).__name__} is appended to")
        (target.elements if isinstance(target, Record) else target).extend(values)

    def _set_items(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict | Record):
            raise TypeError(f"an item of a {type(target).__name__} is set")
        set_items(target.items if isinstance(target, Record) else target, zip(values[::2], values[1::2], strict=True))

    def on_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(global_name(module, name))

    def on_stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a class is named by something else than text")
        self.stack.append(global_name(module, name))

    def on_reduce(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(call(function, arguments))

    def on_inst(self, argument: str) -> None:
        raise refusal(f"run {global_name(*argument.split(' ', 1))}")

    def on_obj(self, _: None) -> None:
        function = next(iter(self.since_mark()), None)
        raise refusal(f"run {function}" if isinstance(function, Global) else "call a value")

    def on_newobj(self, _: None) -> None:
        arguments, cls = self.stack.pop(), self.stack.pop()
        if not isinstance(cls, Global) or not isinstance(arguments, tuple):
            raise refusal(f"make an object of a {type(cls).__name__}, which is no class")
        self.stack.append(Record(cls, arguments))

    def on_newobj_ex(self, _: None) -> None:
        self.stack.pop()  # keyword arguments
        self.on_newobj(None)

    def on_build(self, _: None) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, dict):
            return  # attributes of an OrderedDict, such as the version notes of a state dict
        if not isinstance(target, Record):
            raise refusal(f"change {target}" if isinstance(target, Global) else f"change a {type(target).__name__}")
        if target.state is not None:
            raise refusal(f"set the state of {target.type} twice")
        target.state = state

    def on_binpersid(self, _: None) -> None:
        match self.stack.pop():
            case ("storage", Global() as kind, str(key), str(), int(numel)) if numel >= 0:
                self.stack.append(Storage(key, kind, numel))
            case _:
                raise refusal("fetch something else than a tensor's storage from outside itself")


def _check_length(value: object) -> None:
    """Refuse a whole number that takes long to hash, compare or print: one may be named in a million places."""
    if isinstance(value, int) and value.bit_length() > MAX_INTEGER_BITS:
        raise ConversionError(
            f"the pickle holds a whole number of {value.bit_length()} bits; wanted at most {MAX_INTEGER_BITS}, which "
            "no checkpoint comes near"
        )


def load_data(data: bytes) -> Any:
    """Read a pickle as plain data, `Record`s and `StoredTensor`s, running nothing.

    Args:
        data: The whole pickle, of any protocol.

    Returns:
        Dictionaries, lists, tuples, text and numbers as such; sets as lists; objects as `Record`; tensors as
        `StoredTensor`; names of classes and functions as `Global`.

    Raises:
        UnsafePickleError: The pickle asks to run something; the message names it.
        ConversionError: The pickle is too large or damaged.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise ConversionError(f"the pickle has {len(data)} bytes; at most {MAX_PICKLE_BYTES} are read")
    try:
        return _Interpreter().run(data)
    except ConversionError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConversionError(f"the pickle is damaged: {printable(error)}") from error
