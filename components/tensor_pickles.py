"""The pickles of torch.save, followed without unpickling: a machine that can only describe tensors.

A pickle is a program. It is followed here opcode by opcode: what makes numbers, texts, lists, dicts and descriptions
of tensors is done, and any other opcode, global, call or storage is refused.
Source: PyTorch 2.13, torch/_utils.py and torch/_weights_only_unpickler.py; Python 3.11, Lib/pickletools.py.
"""

from __future__ import annotations

import pickletools
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from components.unsafe_file import UnsafeFile

MAX_PICKLE = 64 << 20
"""A state dict has about 150 bytes a tensor."""
SIZES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1, "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}  # fmt: skip
"""Bytes an element."""
CALLS = ("collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "torch Size")
_PLAIN = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (),
}  # fmt: skip
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class Storage:
    key: str
    kind: str
    numel: int


@dataclass(frozen=True)
class Tensor:
    storage: Storage


class _Mark:
    pass


@dataclass
class Machine:
    """Follows one pickle. Containers are real, what is in them is inert."""

    path: Path
    storages: dict[str, Storage] = field(default_factory=dict)

    def refuse(self, reason: str, detail: str) -> UnsafeFile:
        return UnsafeFile(self.path, reason, detail[:120])

    def run(self, stream: BinaryIO) -> Any:
        """What the pickle at the stream's place stands for; the stream is behind it afterwards."""
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DeprecationWarning)  # pickletools' own, of odd escapes in a name
                return self._follow(stream)
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, DeprecationWarning) as error:
            if isinstance(error, UnsafeFile):
                raise
            raise self.refuse("pickle_damaged", f"{type(error).__name__}: {error}") from None

    def _follow(self, stream: BinaryIO) -> Any:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if (opcode.name == "PROTO") != (number == 0):
                raise self.refuse("pickle_opcode", "its protocol is not stated first, and only there")
            if opcode.name == "STOP":
                (found,) = self.stack
                return found
            self._step(opcode.name, argument)
        raise self.refuse("pickle_damaged", "it has no end")

    def _step(self, name: str, argument: Any) -> None:
        if name in _PLAIN:
            self.stack.append(_PLAIN[name])
        elif name in _VALUES:
            self.stack.append(argument)
        elif (do := getattr(self, f"do_{name.lower()}", None)) is not None:
            do(argument)
        else:
            raise self.refuse("pickle_opcode", name)

    def do_proto(self, argument: int) -> None:
        if argument != 2:
            raise self.refuse("pickle_opcode", f"protocol {argument}, and torch.save writes 2")

    def do_mark(self, _: Any) -> None:
        self.stack.append(_Mark())

    def _marked(self) -> list[Any]:
        found: list[Any] = []
        while not isinstance(top := self.stack.pop(), _Mark):
            found.append(top)
        return found[::-1]

    def _pop(self) -> Any:
        """Never across a mark: there the real machine would do something else."""
        if isinstance(top := self.stack.pop(), _Mark):
            raise self.refuse("pickle_damaged", "a mark where a value should be")
        return top

    def _top(self) -> Any:
        self.stack.append(self._pop())
        return self.stack[-1]

    def do_empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def do_empty_list(self, _: Any) -> None:
        self.stack.append([])

    def do_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._marked()))

    def do_tuple1(self, _: Any) -> None:
        self._last(1)

    def do_tuple2(self, _: Any) -> None:
        self._last(2)

    def do_tuple3(self, _: Any) -> None:
        self._last(3)

    def _last(self, number: int) -> None:
        self.stack.append(tuple([self._pop() for _ in range(number)][::-1]))

    def do_binput(self, argument: int) -> None:
        if argument > MAX_PICKLE:
            raise self.refuse("pickle_damaged", "its memo is too large")
        self.memo[argument] = self._top()

    do_long_binput = do_binput

    def do_binget(self, argument: int) -> None:
        self.stack.append(self.memo[argument])

    do_long_binget = do_binget

    def do_setitem(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def do_setitems(self, _: Any) -> None:
        self._set(self._marked())

    def _set(self, pairs: list[Any]) -> None:
        into = self._top()
        if type(into) is not dict or len(pairs) % 2:
            raise self.refuse("pickle_damaged", "items for something that is no dict")
        for key, value in zip(pairs[::2], pairs[1::2]):
            if not isinstance(key, str | int | float | bool) and key is not None:
                raise self.refuse("pickle_damaged", "a key that is no text or number")
            into[key] = value

    def do_append(self, _: Any) -> None:
        value = self._pop()
        self._extend([value])

    def do_appends(self, _: Any) -> None:
        self._extend(self._marked())

    def _extend(self, values: list[Any]) -> None:
        into = self._top()
        if type(into) is not list:
            raise self.refuse("pickle_damaged", "values for something that is no list")
        into.extend(values)

    def do_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        if argument not in CALLS and not (module == "torch" and name in SIZES):
            raise self.refuse("pickle_global", argument.replace(" ", "."))
        self.stack.append(_Global(argument))

    def do_build(self, _: Any) -> None:
        """torch writes the version numbers of modules so, as `_metadata` of an OrderedDict."""
        state, into = self._pop(), self._top()
        if type(into) is not dict or type(state) is not dict or set(state) != {"_metadata"}:
            raise self.refuse("pickle_opcode", "BUILD of something else than a state dict")

    def do_binpersid(self, _: Any) -> None:
        told = self._pop()
        if type(told) is not tuple or len(told) not in (5, 6) or told[0] != "storage" or told[5:] not in ((), (None,)):
            raise self.refuse("pickle_opcode", "a reference to something else than a storage")
        kind, key, device, numel = told[1:5]
        fits = isinstance(kind, _Global) and kind.name.startswith("torch ") and isinstance(key, str) and key.isascii()
        fits = fits and key.isdigit() and isinstance(device, str) and type(numel) is int and numel >= 0
        if not fits or kind.name == "torch Size":
            raise self.refuse("bad_storage", "a storage that is not described as torch does it")
        storage = Storage(key, kind.name.removeprefix("torch "), numel)
        if self.storages.setdefault(key, storage) != storage:
            raise self.refuse("bad_storage", f"storage {key} is described twice")
        self.stack.append(storage)

    def do_reduce(self, _: Any) -> None:
        arguments, call = self._pop(), self._pop()
        if not isinstance(call, _Global) or type(arguments) is not tuple or call.name not in CALLS:
            raise self.refuse("pickle_opcode", "a call of something that is no function of torch")
        if call.name == "collections OrderedDict":
            self.stack.append(self._ordered(arguments))
        elif call.name == "torch Size":
            self.stack.append(self._counts(*arguments))
        elif call.name == "torch._utils _rebuild_tensor_v2":
            self.stack.append(self._tensor(*arguments))
        else:
            tensor, _, hooks = arguments
            if not isinstance(tensor, Tensor) or hooks != {}:
                raise self.refuse("bad_storage", "a parameter that is no tensor")
            self.stack.append(tensor)

    def _ordered(self, arguments: tuple[Any, ...]) -> dict[Any, Any]:
        """Python 2 gave the items as a list of pairs."""
        made: dict[Any, Any] = {}
        self.stack.append(made)
        for pair in arguments[0] if arguments else ():
            self._set(list(pair))
        self.stack.pop()
        return made

    def _counts(self, values: Any) -> tuple[int, ...]:
        if type(values) is not tuple or not all(type(v) is int and 0 <= v < 1 << 62 for v in values):
            raise self.refuse("bad_shape", "a size that is no whole number")
        return values

    def _tensor(
        self, storage: Any, offset: Any, shape: Any, strides: Any, gradient: Any, hooks: Any, *metadata: Any
    ) -> Tensor:
        size, steps = self._counts(shape), self._counts(strides)
        described = isinstance(storage, Storage) and type(offset) is int and offset >= 0 and len(size) == len(steps)
        if not described or not isinstance(gradient, bool) or hooks != {} or metadata not in ((), (None,), ({},)):
            raise self.refuse("bad_storage", "a tensor that is not described as torch does it")
        last = offset + sum((n - 1) * step for n, step in zip(size, steps)) if all(size) else -1
        if last >= storage.numel:
            raise self.refuse(
                "bad_storage", f"storage {storage.key} has {storage.numel} numbers, and {last + 1} are used"
            )
        return Tensor(storage)
