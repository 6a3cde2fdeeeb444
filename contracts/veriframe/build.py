"""Compiles the Cairo contracts, with what PyPI offers: `python contracts/veriframe/build.py`.

The compiler is the binary in cairo-lang 0.13.1 (Cairo 2.6). Its package leaves out a few files of
the core library: the preludes and the traits of numbers, which are written here again, and without
the one use of those that would need more. Sierra becomes Casm by the compiler of cairo-lang 0.14
(Cairo 2.12), which is in the engine's virtual environment. `--check` compares with what is there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from starknet_py.common import create_sierra_compiled_contract
from starknet_py.hash.sierra_class_hash import compute_sierra_class_hash

from causeway.sandbox.starknet.engine import install

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "starknet"
_INSIDE = Path("starkware/starknet/compiler/v1/sierra-compiler-major-1")
_COMPILER = "cairo-lang==0.13.1"

_PRELUDE = """\
pub use core::{RangeCheck, SegmentArena, assert, bool, felt252, usize, panic_with_felt252};
pub use core::{array, array::{Array, ArrayTrait, Span, SpanTrait}};
pub use core::box::{Box, BoxTrait};
pub use core::{bytes_31, bytes_31::{Bytes31Trait, bytes31}};
pub use core::{byte_array, byte_array::{ByteArray, ByteArrayTrait}};
pub use core::clone::Clone;
pub use core::dict::{Felt252Dict, Felt252DictTrait, SquashedFelt252Dict};
pub use core::{ec, ecdsa, gas, gas::GasBuiltin, hash, keccak, math, option, result, serde, traits};
pub use core::{integer, integer::{Bitwise, i128, i16, i32, i64, i8, u128, u16, u256, u32, u64, u8}};
pub use core::nullable::{Nullable, NullableTrait};
pub use core::option::{Option, OptionTrait};
pub use core::panics::{Panic, PanicResult, panic};
pub use core::pedersen::Pedersen;
pub use core::poseidon::Poseidon;
pub use core::result::{Result, ResultTrait};
pub use core::serde::Serde;
pub use core::{starknet, starknet::System, to_byte_array, zeroable};
pub use core::traits::{
    Add, AddEq, BitAnd, BitNot, BitOr, BitXor, Copy, Default, Destruct, Div, DivEq, DivRem, Drop,
    Felt252DictValue, Index, IndexView, Into, Mul, MulEq, Neg, Not, PanicDestruct, PartialEq,
    PartialOrd, Rem, RemEq, Sub, SubEq, TryInto,
};
pub use core::zeroable::{NonZero, Zeroable};
"""
_NUMBERS = """\
pub trait Zero<T> {
    fn zero() -> T;
    fn is_zero(self: @T) -> bool;
    fn is_non_zero(self: @T) -> bool;
}
pub trait One<T> {
    fn one() -> T;
    fn is_one(self: @T) -> bool;
    fn is_non_one(self: @T) -> bool;
}
pub trait BitSize<T> {
    fn bits() -> usize;
}
pub trait OverflowingAdd<T> {
    fn overflowing_add(self: T, v: T) -> (T, bool);
}
pub trait OverflowingSub<T> {
    fn overflowing_sub(self: T, v: T) -> (T, bool);
}
pub trait OverflowingMul<T> {
    fn overflowing_mul(self: T, v: T) -> (T, bool);
}
"""


def _compiler(folder: Path, python: Path) -> Path:
    """Return the compiler, its core library made whole."""
    subprocess.run(  # noqa: S603 - our own arguments
        [str(python), "-m", "pip", "download", "--quiet", "--no-deps",
         "--dest", str(folder), _COMPILER],
        check=True,
    )  # fmt: skip
    (archive,) = folder.glob("cairo*lang-0.13.1.*")
    with zipfile.ZipFile(archive) as packed:
        wanted = [name for name in packed.namelist() if str(_INSIDE) in name]
        packed.extractall(folder, wanted)
    (root,) = folder.glob(f"*/{_INSIDE}")
    library = root / "corelib" / "src"
    for name in ("prelude/v2023_01", "prelude/v2023_10", "num/traits"):
        path = library / f"{name}.cairo"
        path.parent.mkdir(exist_ok=True)
        path.write_text(_NUMBERS if name.startswith("num") else _PRELUDE)
    integers = library / "integer.cairo"
    integers.write_text(re.sub(r"(?m)^impl .*Wrapping.* = core::num.*\n", "", integers.read_text()))
    program = root / "bin" / "starknet-compile"
    program.chmod(0o755)
    return program


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        said = (done.stderr + done.stdout).split("Stack backtrace:")[0]
        sys.exit(f"{command[0]}: {said}")


def _build(source: Path, compiler: Path, python: Path, folder: Path) -> str:
    """Return a contract's build output: its hash, its class and what the engine runs."""
    sierra, casm = folder / f"{source.stem}.sierra.json", folder / f"{source.stem}.casm.json"
    _run(str(compiler), "--single-file", str(source), str(sierra))
    (to_casm,) = python.parent.parent.glob(
        f"lib/python*/site-packages/{_INSIDE}/bin/starknet-sierra-compile"
    )
    _run(
        str(to_casm), "--allowed-libfuncs-list-name", "all", "--add-pythonic-hints",
        str(sierra), str(casm),
    )  # fmt: skip
    text = sierra.read_text()
    found = compute_sierra_class_hash(create_sierra_compiled_contract(text))
    made: dict[str, Any] = json.loads(text)
    made.pop("sierra_program_debug_info", None)
    made["abi"] = json.dumps(made["abi"], separators=(",", ":"))
    output = {
        "class_hash": hex(found),
        "sierra": made,
        "casm": json.loads(casm.read_text()),
    }
    return json.dumps(output, separators=(",", ":"), sort_keys=True) + "\n"


def main() -> None:
    """Build all contracts, or say which are not what their sources give."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check: bool = parser.parse_args().check
    python = asyncio.run(install())
    BUILD.mkdir(parents=True, exist_ok=True)
    stale: list[str] = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        compiler = _compiler(folder, python)
        for source in sorted((HERE / "src").glob("*.cairo")):
            built = _build(source, compiler, python, folder)
            target = BUILD / f"{source.stem}.json"
            if check and (not target.exists() or target.read_text() != built):
                stale.append(target.name)
            elif not check:
                target.write_text(built)
    if stale:
        sys.exit(f"not what the sources give: {', '.join(stale)}")


if __name__ == "__main__":
    main()
