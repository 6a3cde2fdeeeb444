"""Cairo types: from the text in an ABI to what reads and writes their values as felts.

    felt252, u8 to u128, i8 to i128, usize    int, and BoundedInt::<low, high>
    u256                                      int (two felts: low, high)
    bool                                      bool
    ContractAddress, ClassHash                0x and 64 digits
    bytes31                                   bytes (31)
    ByteArray                                 text
    Array, Span, [T; N], tuples               tuple
    structs                                   dict
    Option                                    the value, or None
    other enums                               Variant(name, value)

Reading is strict: a value out of its type's range is a `ValueError`, as are felts that are missing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from causeway.chains.starknet.felts import ADDRESS_BOUND, PRIME, SHORT, felt

_LIMB = 1 << 128
#: Nothing longer is believed to be a length.
_LONGEST = 1 << 32


class Variant(NamedTuple):
    """The value of an enum: which variant, and what it carries (`()` where it carries nothing)."""

    name: str
    value: Any = ()


class Type(ABC):
    """A Cairo type."""

    #: How many felts a value takes; None where that depends on the value.
    size: int | None

    @abstractmethod
    def read(self, felts: Sequence[int], at: int) -> tuple[Any, int]:
        """Return the value that begins at `at`, and where the next one begins."""

    @abstractmethod
    def write(self, value: Any, into: list[int]) -> None:
        """Append a value; `ValueError` when it is none of this type."""


class Scalar(Type):
    """One felt below a bound. `kind`: what it is for whoever stores it."""

    size = 1

    def __init__(self, kind: str, bound: int) -> None:
        self.kind = kind
        self.bound = bound

    def read(self, felts: Sequence[int], at: int) -> tuple[Any, int]:
        """Return the value that begins at `at`, and where the next one begins."""
        number = _at(felts, at)
        if number >= self.bound:
            raise ValueError(f"{number:#x} is not below {self.bound:#x}")
        return self.value(number), at + 1

    def value(self, number: int) -> Any:
        """Return what a felt in range stands for."""
        return number

    def write(self, value: Any, into: list[int]) -> None:
        """Append a value; `ValueError` when it is none of this type."""
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < self.bound:
            raise ValueError(f"{value!r} is not a number from 0 to below {self.bound:#x}")
        into.append(value)


class Signed(Type):
    """A number in a range that may be below zero, where it is the felt that far below the prime."""

    size = 1

    def __init__(self, kind: str, low: int, high: int) -> None:
        self.kind = kind
        self.low, self.high = low, high

    def read(self, felts: Sequence[int], at: int) -> tuple[Any, int]:
        """Return the value that begins at `at`, and where the next one begins."""
        number = _at(felts, at)
        if number > PRIME // 2:
            number -= PRIME
        if not self.low <= number <= self.high:
            raise ValueError(f"{number} is not from {self.low} to {self.high}")
        return number, at + 1

    def write(self, value: Any, into: list[int]) -> None:
        """Append a value; `ValueError` when it is none of this type."""
        number = isinstance(value, int) and not isinstance(value, bool)
        if not number or not self.low <= value <= self.high:
            raise ValueError(f"{value!r} is not a number from {self.low} to {self.high}")
        into.append(value % PRIME)


class Bool(Scalar):
    """True or false."""

    def __init__(self) -> None:
        super().__init__("bool", 2)

    def value(self, number: int) -> Any:
        """Return what a felt in range stands for."""
        return number == 1

    def write(self, value: Any, into: list[int]) -> None:
        """Append a value; `ValueError` when it is none of this type."""
        if not isinstance(value, bool):
            raise ValueError(f"{value!r} is neither True nor False")
        into.append(int(value))


class Address(Scalar):
    """The address of a contract, or the hash of a class."""

    def value(self, number: int) -> Any:
        """Return what a felt in range stands for."""
        return f"0x{number:064x}"

    def write(self, value: Any, into: list[int]) -> None:
        """Append a value; `ValueError` when it is none of this type."""
        if not isinstance(value, (int, str)):
            raise ValueError(f"{value!r} is no address")
        super().write(felt(value), into)


class Bytes31(Scalar):
    """31 bytes in a felt."""

    def __init__(self) -> None:
        super().__init__("bytes31", 1 << (8 * SHORT))

    def value(self, number: int) -> Any:
        """Return what a felt in range stands for."""
        return number.to_bytes(SHORT, "big")

    def write(self, value: Any, into: list[int]) -> None:
        """Append a value; `ValueError` when it is none of this type."""
        if not isinstance(value, bytes) or len(value) != SHORT:
            raise ValueError(f"{value!r} is not {SHORT} bytes")
        into.append(int.from_bytes(value, "big"))


class U256(Type):
    """A number below 2^256: its low half, then its high half."""

    size = 2
    kind = "uint256"

    def read(self, felts: Sequence[int], at: int) -> tuple[Any, int]:
        """Return the value that begins at `at`, and where the next one begins."""
        low, high = _at(felts, at), _at(felts, at + 1)
        if low >= _LIMB or high >= _LIMB:
            raise ValueError("half of a u256 is not below 2^128")
        return high << 128 | low, at + 2

    def write(self, value: Any, into: list[int]) -> None:
        """Append a value; `ValueError` when it is none of this type."""
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 256:
            raise ValueError(f"{value!r} is not a number from 0 to below 2^256")
        into += [value % _LIMB, value >> 128]


class ByteArray(Type):
    """Text: the number of whole words of 31 bytes, these, the rest, and the rest's length.

    A contract may put any bytes there: those that are no UTF-8, and zeros, which PostgreSQL has no
    place for in text, are written `\\xNN`.
    """

    size = None

    def read(self, felts: Sequence[int], at: int) -> tuple[Any, int]:
        """Return the value that begins at `at`, and where the next one begins."""
        words, at = _length(felts, at)
        plain = bytearray()
        for word in felts[at : at + words]:
            if word >> (8 * SHORT):
                raise ValueError("a word of a ByteArray has more than 31 bytes")
            plain += word.to_bytes(SHORT, "big")
        at += words
        rest, size = _at(felts, at), _at(felts, at + 1)
        if size >= SHORT or rest >> (8 * size):
            raise ValueError("the last word of a ByteArray is longer than its length")
        plain += rest.to_bytes(size, "big")
        return plain.decode("utf-8", "backslashreplace").replace("\0", "\\x00"), at + 2

    def write(self, value: Any, into: list[int]) -> None:
        """Append a value; `ValueError` when it is none of this type."""
        if not isinstance(value, (str, bytes)):
            raise ValueError(f"{value!r} is no text")
        plain = value.encode() if isinstance(value, str) else value
        whole = len(plain) // SHORT
        into.append(whole)
        into += [int.from_bytes(plain[n * SHORT : (n + 1) * SHORT], "big") for n in range(whole)]
        into += [int.from_bytes(plain[whole * SHORT :], "big"), len(plain) % SHORT]


class Array(Type):
    """An `Array` or a `Span`: how many, then each."""

    size = None

    def __init__(self, inner: Type) -> None:
        self.inner = inner

    def read(self, felts: Sequence[int], at: int) -> tuple[Any, int]:
        """Return the value that begins at `at`, and where the next one begins."""
        count, at = _length(felts, at, least=self.inner.size)
        values: list[Any] = []
        for _ in range(count):
            value, at = self.inner.read(felts, at)
            values.append(value)
        return tuple(values), at

    def write(self, value: Any, into: list[int]) -> None:
        """Append a value; `ValueError` when it is none of this type."""
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            raise ValueError(f"{value!r} is no list")
        values = cast("Sequence[Any]", value)
        into.append(len(values))
        for one in values:
            self.inner.write(one, into)


class Struct(Type):
    """Named members, one after the other. Without names a tuple."""

    def __init__(self, members: Sequence[tuple[str, Type]], *, named: bool = True) -> None:
        self.members = tuple(members)
        self.named = named
        sizes = [one.size for _, one in self.members]
        self.size = None if None in sizes else sum(one for one in sizes if one is not None)

    def read(self, felts: Sequence[int], at: int) -> tuple[Any, int]:
        """Return the value that begins at `at`, and where the next one begins."""
        values: list[Any] = []
        for _, kind in self.members:
            value, at = kind.read(felts, at)
            values.append(value)
        if not self.named:
            return tuple(values), at
        return {name: value for (name, _), value in zip(self.members, values, strict=True)}, at

    def write(self, value: Any, into: list[int]) -> None:
        """Append a value; `ValueError` when it is none of this type."""
        if isinstance(value, Mapping):
            given = cast("Mapping[str, Any]", value)
            if set(given) != {name for name, _ in self.members}:
                raise ValueError(f"{sorted(given)} are not the members of the struct")
            values = [given[name] for name, _ in self.members]
        else:
            if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
                raise ValueError(f"{value!r} has no members")
            values = list(cast("Sequence[Any]", value))
        if len(values) != len(self.members):
            raise ValueError(f"{len(values)} values for {len(self.members)} members")
        for (_, kind), one in zip(self.members, values, strict=True):
            kind.write(one, into)


class Enum(Type):
    """The number of the variant, then what it carries."""

    def __init__(self, variants: Sequence[tuple[str, Type]], *, option: bool = False) -> None:
        self.variants = tuple(variants)
        self.option = option
        sizes = {one.size for _, one in self.variants}
        only = sizes.pop() if len(sizes) == 1 else None
        self.size = None if only is None else 1 + only

    def read(self, felts: Sequence[int], at: int) -> tuple[Any, int]:
        """Return the value that begins at `at`, and where the next one begins."""
        number = _at(felts, at)
        if number >= len(self.variants):
            raise ValueError(f"{number} is no variant of {len(self.variants)}")
        name, kind = self.variants[number]
        value, at = kind.read(felts, at + 1)
        if self.option:
            return (value if name == "Some" else None), at
        return Variant(name, value), at

    def write(self, value: Any, into: list[int]) -> None:
        """Append a value; `ValueError` when it is none of this type."""
        if self.option:
            value = Variant("None") if value is None else Variant("Some", value)
        if not isinstance(value, Variant):
            raise ValueError(f"{value!r} is no Variant")
        for number, (name, kind) in enumerate(self.variants):
            if name == value.name:
                into.append(number)
                kind.write(value.value, into)
                return
        raise ValueError(f"{value.name!r} is none of {', '.join(n for n, _ in self.variants)}")


def _at(felts: Sequence[int], at: int) -> int:
    if at >= len(felts):
        raise ValueError("too few felts")
    return felts[at]


def _length(felts: Sequence[int], at: int, least: int | None = 1) -> tuple[int, int]:
    """Return a length and where what it counts begins; each of these takes `least` felts."""
    count = _at(felts, at)
    if count >= _LONGEST or count * max(1, least or 1) > len(felts) - at - 1:
        raise ValueError(f"a length of {count} with {len(felts) - at - 1} felts left")
    return count, at + 1


UNIT = Struct((), named=False)
_FELT = Scalar("uint252", PRIME)
_PLAIN: dict[str, Type] = {
    "core::felt252": _FELT,
    "felt252": _FELT,
    "felt": _FELT,
    "core::bool": Bool(),
    "core::integer::u256": U256(),
    "Uint256": U256(),
    "core::byte_array::ByteArray": ByteArray(),
    "core::bytes_31::bytes31": Bytes31(),
    "core::starknet::contract_address::ContractAddress": Address("bytes32", ADDRESS_BOUND),
    "core::starknet::class_hash::ClassHash": Address("bytes32", PRIME),
    "core::starknet::storage_access::StorageAddress": Scalar("uint252", PRIME),
    "core::starknet::eth_address::EthAddress": Scalar("uint160", 1 << 160),
    "core::integer::usize": Scalar("uint32", 1 << 32),
    "()": UNIT,
    **{f"core::integer::u{n}": Scalar(f"uint{n}", 1 << n) for n in (8, 16, 32, 64, 96, 128)},
    **{
        f"core::integer::i{n}": Signed(f"int{n}", -(1 << (n - 1)), (1 << (n - 1)) - 1)
        for n in (8, 16, 32, 64, 128)
    },
}
_LISTS = ("core::array::Array", "core::array::Span", "core::array::ArrayTrait")
_BOUNDED = ("core::internal::BoundedInt", "core::internal::bounded_int::BoundedInt")
_WRAPPED = ("core::zeroable::NonZero", "core::box::Box", "core::internal::bounded_int::NonZero")
#: Types inside types, at most.
_DEEPEST = 32


@dataclass(frozen=True)
class Definition:
    """A struct or an enum of the ABI: the names and types of what it is made of."""

    parts: tuple[tuple[str, str], ...]
    enum: bool


class TypeBook:
    """Finds the types of one ABI by their text; each is made once."""

    def __init__(self, definitions: Mapping[str, Definition]) -> None:
        self._definitions = dict(definitions)
        self._made: dict[str, Type] = {}

    def find(self, text: str) -> Type:
        """Return a type; `ValueError` when it is not known or holds itself."""
        return self._find(text.strip(), 0)

    def _find(self, text: str, depth: int) -> Type:
        text = text.removeprefix("@").strip()
        known = _PLAIN.get(text) or self._made.get(text)
        if known is None:
            if depth > _DEEPEST:
                raise ValueError(f"{text} holds itself")
            known = self._made[text] = self._make(text, depth + 1)
        return known

    def _make(self, text: str, depth: int) -> Type:
        def find(inner: str) -> Type:
            return self._find(inner.strip(), depth)

        if text.startswith("(") and text.endswith(")"):
            return Struct([("", find(one)) for one in _split(text[1:-1])], named=False)
        if text.startswith("[") and text.endswith("]"):
            inner, count = text[1:-1].rsplit(";", 1)
            return Struct([("", find(inner))] * int(count), named=False)
        defined = self._definitions.get(text)
        name, arguments = _generic(text)
        if name in _LISTS and len(arguments) == 1:
            return Array(find(arguments[0]))  # some ABIs define a Span as a struct around one
        if name in _WRAPPED and len(arguments) == 1:
            return find(arguments[0])
        if name in _BOUNDED and len(arguments) == 2:
            low, high = map(int, arguments)
            if not -PRIME // 2 < low <= high < PRIME // 2:
                raise ValueError(f"{text} has no values, or more than the field")
            return Signed("int256", low, high)
        if name == "core::option::Option" and len(arguments) == 1:
            return Enum([("Some", find(arguments[0])), ("None", UNIT)], option=True)
        if name == "core::result::Result" and len(arguments) == 2 and defined is None:
            return Enum([("Ok", find(arguments[0])), ("Err", find(arguments[1]))])
        if defined is None:
            raise ValueError(f"the ABI does not say what {text} is")
        parts = [(name, find(kind)) for name, kind in defined.parts]
        return Enum(parts) if defined.enum else Struct(parts)


def _generic(text: str) -> tuple[str, list[str]]:
    """Return `name` and its arguments of `name::<a, b>`."""
    if not text.endswith(">"):
        return text, []
    name, _, rest = text.partition("<")
    return name.removesuffix("::"), _split(rest[:-1])


_NESTING = {"(": 1, "<": 1, "[": 1, ")": -1, ">": -1, "]": -1}


def _split(text: str) -> list[str]:
    """Return what commas divide at the outermost level."""
    parts, depth, start = list[str](), 0, 0
    for at, sign in enumerate(text):
        depth += _NESTING.get(sign, 0)
        if sign == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    parts.append(text[start:].strip())
    return [one for one in parts if one]
