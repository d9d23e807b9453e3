"""What a pickle can be read as without importing anything, and the few calls that it may ask for.

Names of classes and functions stay names, objects become records, tensors say where their numbers lie. A call that is
not in the table below is refused, whatever its arguments are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any


class ConversionError(ValueError):
    """A checkpoint cannot be converted; the message says what was seen, what was wanted and what to do."""


class UnsafePickleError(ConversionError):
    """A pickle asks to run something. It was refused, and nothing was run."""


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a class or a function, as a pickle gives it. It is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True, repr=False)  # an object may hold itself, and more than can be printed
class Record:
    """What a pickle says about an object whose class is not imported."""

    type: Global
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Storage:
    """A record of numbers outside the pickle."""

    key: str
    type: Global
    numel: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor that was not read yet: a strided view of a storage. Lengths and offsets count elements.

    `negated` is torch's lazy negation: the storage holds the numbers with their signs turned.
    """

    storage: Storage
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    negated: bool = False


# What pickles of Python 3 at protocol 2 write for modules that were renamed since Python 2.
_RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "_operator": "operator"}

_MAX_DIMENSIONS = 16
_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
}


def global_name(module: str, name: str) -> Global:
    """Give a class or function the name that it has in Python 3."""
    if (module, name) == ("__builtin__", "reduce"):
        return Global("functools", "reduce")
    return Global(_RENAMED.get(module, module), name)


def printable(text: object, limit: int = 120) -> str:
    """Shorten what a file says and escape its control characters, so that it can stand in a message."""
    whole = str(text)
    return whole[:limit].encode("unicode_escape").decode() + ("..." if len(whole) > limit else "")


def refusal(what: str) -> UnsafePickleError:
    """Make the error that says what a pickle asked for."""
    return UnsafePickleError(
        f"the pickle asks to {printable(what)}. Nothing was run. A checkpoint of tensors never needs this: do not open "
        "the file with anything else, and fetch it again from a source that you trust"
    )


def _is_key(value: object) -> bool:
    """Whether hashing `value` takes constant time; nested tuples can be made to take for ever."""
    scalars = (str, bytes, int, float, type(None), Global, Record)
    return isinstance(value, scalars) or (
        isinstance(value, tuple) and len(value) < 9 and all(isinstance(v, scalars) for v in value)
    )


def set_items(target: dict[Any, Any], pairs: Iterable[tuple[Any, Any]]) -> None:
    """Set items of a dictionary whose keys come from a pickle."""
    for key, value in pairs:
        if not _is_key(key):
            raise ConversionError(
                f"the pickle uses a {type(key).__name__} as a dictionary key; wanted text or a number"
            )
        target[key] = value


# What a pickle may ask to call. Each rule is given the arguments and builds the value itself. No rule copies or prints
# an argument: a large or deeply nested one may be named in a million calls.


def _record(function: Global, arguments: tuple[Any, ...]) -> Record:
    return Record(function, arguments)


def _empty_dict(function: Global, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    return {}  # items of an OrderedDict or defaultdict follow the call


def _sequence(function: Global, arguments: tuple[Any, ...]) -> Any:
    return arguments[0] if arguments else []


def _reconstructor(function: Global, arguments: tuple[Any, ...]) -> Record:
    cls, _, state = arguments  # the state is the value as its built-in base class sees it
    if not isinstance(cls, Global):
        raise TypeError("an object's class is no class")
    items = state if isinstance(state, dict) else {}
    elements = state if isinstance(state, list) else []
    return Record(cls, items=items, elements=elements)


def _tensor(function: Global, arguments: tuple[Any, ...]) -> StoredTensor:
    storage, offset, shape, stride = arguments[:4]
    if not isinstance(storage, Storage):
        raise TypeError("a tensor has no storage")
    if function.name == "_rebuild_tensor_v3":
        dtype = arguments[6].name
    else:
        dtype = _DTYPES.get(storage.type.name, storage.type.name.removesuffix("Storage").lower())
    if not (_are_lengths((offset,)) and _are_lengths(shape) and _are_lengths(stride) and len(shape) == len(stride)):
        raise TypeError("a tensor's offset, shape or stride is not made of whole numbers")
    return StoredTensor(storage, dtype, tuple(shape), tuple(stride), offset, _is_negated(function, arguments))


def _is_negated(function: Global, arguments: tuple[Any, ...]) -> bool:
    """Whether what torch wrote beside a tensor says that its signs are turned; anything else there is refused."""
    place = {"_rebuild_tensor_v2": 6, "_rebuild_tensor_v3": 7}.get(function.name, len(arguments))
    bits = arguments[place] if place < len(arguments) else None
    if bits is None:
        return False
    if not isinstance(bits, dict) or not all(name in ("neg", "conj") and type(on) is bool for name, on in bits.items()):
        raise ConversionError("a tensor carries notes that no version of torch is known to write; wanted neg and conj")
    if bits.get("conj"):
        raise ConversionError(
            "a tensor is the conjugate of its storage, which is a matter of complex numbers; wanted floating-point "
            "ones. Save it anew: `tensor.resolve_conj()`"
        )
    return bits.get("neg", False)


def _are_lengths(values: object) -> bool:
    few = isinstance(values, tuple | list) and len(values) <= _MAX_DIMENSIONS
    return few and all(type(value) is int and 0 <= value < 1 << 62 for value in values)  # type: ignore[attr-defined]


def _parameter(function: Global, arguments: tuple[Any, ...]) -> StoredTensor:
    if not isinstance(arguments[0], StoredTensor):
        raise TypeError("a parameter holds no tensor")
    return arguments[0]


def _generic(function: Global, arguments: tuple[Any, ...]) -> Record:
    """`Dict[str, int]`, `int | str` and `type(None)` are pickled as calls; anything else of that form is refused."""
    first = str(arguments[0]) if arguments and isinstance(arguments[0], Global | None) else ""
    legal = {
        "operator.getitem": first.startswith("typing."),
        "functools.reduce": first == "operator.or_",
        "builtins.type": first == "None" and len(arguments) == 1,
    }
    if not legal[str(function)]:
        raise refusal(f"run {function}")
    return Record(function, arguments)


_PATHS = [f"{flavour}Path" for flavour in ("", "Posix", "Windows", "Pure", "PurePosix", "PureWindows")]
_CALLS: dict[str, Callable[[Global, tuple[Any, ...]], Any]] = {
    **dict.fromkeys(("collections.OrderedDict", "collections.defaultdict"), _empty_dict),
    **dict.fromkeys(("builtins.set", "builtins.frozenset", "torch.Size"), _sequence),
    **dict.fromkeys(("operator.getitem", "functools.reduce", "builtins.type"), _generic),
    **dict.fromkeys((f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3")), _tensor),
    **dict.fromkeys((f"torch._utils._rebuild_parameter{kind}" for kind in ("", "_with_state")), _parameter),
    "copyreg._reconstructor": _reconstructor,
    # Constructors of plain values, kept as records of their arguments.
    **dict.fromkeys((f"builtins.{name}" for name in ("bytearray", "complex", "range", "slice", "xrange")), _record),
    **dict.fromkeys((f"datetime.{name}" for name in ("date", "datetime", "timedelta")), _record),
    **dict.fromkeys((f"{home}.{path}" for home in ("pathlib", "pathlib._local") for path in _PATHS), _record),
    **dict.fromkeys((f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")), _record),
    **dict.fromkeys((f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")), _record),
    **dict.fromkeys(("numpy.dtype", "torch.device", "types.GenericAlias", "_codecs.encode"), _record),
    **dict.fromkeys(("collections.Counter", "collections.deque"), _record),
}


def call(function: object, arguments: object) -> Any:
    """Build what a pickle's call of `function` stands for.

    Raises:
        UnsafePickleError: The table of harmless calls does not hold it.
    """
    if not isinstance(function, Global):
        raise refusal(f"call a value of type {type(function).__name__}")
    rule = _CALLS.get(str(function))
    if rule is None:
        raise refusal(f"run {function}")
    if not isinstance(arguments, tuple):
        raise TypeError(f"{function} is called without a tuple of arguments")
    return rule(function, arguments)


def unwrap(value: Any) -> Any:
    """Return what an object holds: an OmegaConf node's content, a dict's or list's items, or the object's attributes.

    Args:
        value: What `load_data` returned, or a part of it. Only a `Record` is changed, and only its outermost layer.

    Returns:
        A dictionary, list or scalar; for a `Record` that holds none of these, its type as a `Global`.
    """
    for _ in range(8):  # an optional OmegaConf node may hold a node; a hand-made one may hold itself
        if not isinstance(value, Record):
            return value
        value = _content(value)
    return None


def _content(record: Record) -> Any:
    state = record.state
    if isinstance(state, tuple) and len(state) == 2 and all(isinstance(part, dict | None) for part in state):
        state = {**(state[0] or {}), **(state[1] or {})}  # attributes, and those kept in slots
    if record.type.module.partition(".")[0] == "omegaconf" and isinstance(state, dict):
        return state.get("_content", state.get("_val"))
    if record.items or record.elements:
        return record.items or record.elements
    return state if isinstance(state, dict) else record.type
