"""Executes Cairo contracts, in a virtual environment of its own: requests in, answers out.

Runs apart because `cairo-lang` pins packages that the product must not depend on. Nothing of ours
is imported here. One JSON object a line on standard input, one answer a line on standard output;
numbers are hex text. State is kept for each block, so that calls can look back and a
reorganisation is a return to an older block's state.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import dataclasses
import json
import re
import sys
from typing import Any

_get_field: Any = dataclasses._get_field  # type: ignore[attr-defined]


def _hashable_default(cls: Any, name: Any, kind: Any, *rest: Any) -> Any:
    # Since Python 3.11 a default without a hash is refused; the package has some (they are frozen).
    default = cls.__dict__.get(name)
    default = getattr(default, "default", default)
    if dataclasses.is_dataclass(default) and type(default).__hash__ is None:
        type(default).__hash__ = object.__hash__  # type: ignore[assignment]
    return _get_field(cls, name, kind, *rest)


dataclasses._get_field = _hashable_default  # type: ignore[attr-defined]

from starkware.cairo.lang.vm.utils import RunResources  # noqa: E402
from starkware.starknet.business_logic.execution.deprecated_objects import (  # noqa: E402
    ExecutionResourcesManager,
)
from starkware.starknet.business_logic.execution.execute_entry_point import (  # noqa: E402
    ExecuteEntryPoint,
)
from starkware.starknet.business_logic.execution.objects import (  # noqa: E402
    TransactionExecutionContext,
)
from starkware.starknet.business_logic.state.state import CachedSyncState  # noqa: E402
from starkware.starknet.business_logic.state.state_api import SyncStateReader  # noqa: E402
from starkware.starknet.business_logic.state.state_api_objects import BlockInfo  # noqa: E402
from starkware.starknet.definitions.execution_mode import ExecutionMode  # noqa: E402
from starkware.starknet.definitions.general_config import (  # noqa: E402
    StarknetGeneralConfig,
    StarknetOsConfig,
)
from starkware.starknet.public.abi import get_selector_from_name  # noqa: E402
from starkware.starknet.services.api.contract_class.contract_class import (  # noqa: E402
    CompiledClass,
    EntryPointType,
)
from starkware.starkware_utils.error_handling import StarkException  # noqa: E402

_STEPS = 10_000_000
_VALIDATED = 0x56414C4944  # VALID
_FELTS = re.compile(r"0x[0-9a-f]+")


@dataclasses.dataclass
class State:
    """What contracts know as of a block."""

    storage: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)
    classes: dict[int, int] = dataclasses.field(default_factory=dict)

    def copy(self) -> State:
        """Return the same, to be changed."""
        return State(dict(self.storage), dict(self.classes))


class Reader(SyncStateReader):
    """Shows the engine a state."""

    def __init__(self, state: State, compiled: dict[int, Any]) -> None:
        self.state = state
        self.compiled = compiled

    def get_compiled_class(self, compiled_class_hash: int) -> Any:
        """Return a class by its hash."""
        return self.compiled[compiled_class_hash]

    def get_sierra_class(self, class_hash: int) -> Any:
        """Not asked for: classes come compiled."""
        raise KeyError(class_hash)

    def get_compiled_class_hash(self, class_hash: int) -> int:
        """Return the hash of a compiled class: here they are the same."""
        return class_hash if class_hash in self.compiled else 0

    def get_class_hash_at(self, contract_address: int) -> int:
        """Return the class of a contract; 0 when there is none."""
        return self.state.classes.get(contract_address, 0)

    def get_nonce_at(self, *_: Any) -> int:
        """Return 0: nonces are kept by the node."""
        return 0

    def get_storage_at(self, *args: Any, **named: Any) -> int:
        """Return a value of a contract's storage."""
        values = [*args, *named.values()]
        contract = named.get("contract_address", values[-2])
        key = named.get("key", values[-1])
        return self.state.storage.get((contract, key), 0)


class Reverted(Exception):
    """The contracts refused."""


class Engine:
    """Classes, and the state as of each block."""

    def __init__(self) -> None:
        self.compiled: dict[int, Any] = {}
        self.begin({"chain_id": "0x0"})

    def begin(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Begin a chain anew; classes stay known."""
        chain_id = int(asked["chain_id"], 16)
        self.now = State()
        self.kept: dict[int, State] = {}
        config = StarknetGeneralConfig()
        os_config = StarknetOsConfig(chain_id, config.starknet_os_config.fee_token_address)
        self.config = dataclasses.replace(config, starknet_os_config=os_config)
        return {}

    def _run(
        self,
        state: State,
        block: dict[str, Any],
        to: int,
        selector: int,
        calldata: list[int],
        context: Any,
        kind: Any = EntryPointType.EXTERNAL,
    ) -> tuple[Any, CachedSyncState]:
        info = BlockInfo.create_for_testing(block["number"], block["timestamp"])
        cached = CachedSyncState(
            block_info=info,
            state_reader=Reader(state, self.compiled),
            compiled_class_cache=self.compiled,
        )
        entry = ExecuteEntryPoint.create_for_testing(
            contract_address=to,
            calldata=calldata,
            entry_point_selector=selector,
            entry_point_type=kind,
        )
        try:
            call = entry.execute(
                state=cached,
                resources_manager=ExecutionResourcesManager.empty(),
                tx_execution_context=context,
                general_config=self.config,
                support_reverted=True,
            )
        except StarkException as error:
            raise Reverted(_reason(str(error.message))) from None
        if call.failure_flag:
            raise Reverted(_panic(call.retdata))
        return call, cached

    def _context(self, tx: dict[str, Any] | None, mode: Any) -> Any:
        tx = tx or {}
        return TransactionExecutionContext(
            account_contract_address=int(tx.get("sender", "0x0"), 16),
            transaction_hash=int(tx.get("hash", "0x0"), 16),
            signature=_numbers(tx.get("signature", [])),
            max_fee=0,
            nonce=int(tx.get("nonce", "0x0"), 16),
            version=3 if tx else 0,
            run_resources=RunResources(n_steps=_STEPS),
            n_emitted_events=0,
            n_sent_messages=0,
            execution_mode=mode,
        )

    def _write(self, state: State, cached: CachedSyncState) -> None:
        for key, value in cached.cache._storage_writes.items():
            place = key[-2:] if len(key) > 2 else key
            state.storage[(int(place[0]), int(place[1]))] = value
        for address, class_hash in cached.cache._class_hash_writes.items():
            state.classes[address] = class_hash

    def declare(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Learn a compiled class."""
        if int(asked["hash"], 16) not in self.compiled:
            self.compiled[int(asked["hash"], 16)] = CompiledClass.load(asked["casm"])
        return {}

    def deploy(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Put a contract at an address and run its constructor."""
        address, class_hash = int(asked["address"], 16), int(asked["class_hash"], 16)
        state = self.now.copy()
        state.classes[address] = class_hash
        call = None
        if self.compiled[class_hash].entry_points_by_type[EntryPointType.CONSTRUCTOR]:
            call, cached = self._run(
                state,
                asked["block"],
                address,
                get_selector_from_name("constructor"),
                _numbers(asked["calldata"]),
                self._context(None, ExecutionMode.EXECUTE),
                EntryPointType.CONSTRUCTOR,
            )
            self._write(state, cached)
        self.now = state
        return {"events": [] if call is None else _events(call)}

    def handle(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Have a contract handle a message from layer 1, whose sender comes first."""
        state = self.now.copy()
        try:
            call, cached = self._run(
                state,
                asked["block"],
                int(asked["to"], 16),
                int(asked["selector"], 16),
                _numbers(asked["calldata"]),
                self._context(None, ExecutionMode.EXECUTE),
                EntryPointType.L1_HANDLER,
            )
        except Reverted as error:
            return {"reverted": str(error), "events": [], "steps": 0}
        self._write(state, cached)
        self.now = state
        steps = call.execution_resources.n_steps
        return {"reverted": None, "events": _events(call), "steps": steps}

    def call(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Run a function without changing anything."""
        state = self.kept[asked["state"]] if asked.get("state") is not None else self.now
        call, _ = self._run(
            state,
            asked["block"],
            int(asked["to"], 16),
            int(asked["selector"], 16),
            _numbers(asked["calldata"]),
            self._context(None, ExecutionMode.EXECUTE),
        )
        return {"result": [hex(one) for one in call.retdata]}

    def transact(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Have the account validate a transaction, and then execute it.

        The answer says whether it was validated; whether it was reverted; and what it told.
        """
        tx = asked["tx"]
        sender, calldata = int(tx["sender"], 16), _numbers(tx["calldata"])
        state = self.now.copy()
        steps = 0
        if asked.get("validate", True):
            try:
                call, cached = self._run(
                    state,
                    asked["block"],
                    sender,
                    get_selector_from_name("__validate__"),
                    calldata,
                    self._context(tx, ExecutionMode.VALIDATE),
                )
            except Reverted as error:
                return {"validated": False, "reason": str(error)}
            if list(call.retdata) != [_VALIDATED]:
                return {"validated": False, "reason": "the account did not answer VALID"}
            self._write(state, cached)
            steps += call.execution_resources.n_steps
        try:
            call, cached = self._run(
                state,
                asked["block"],
                sender,
                get_selector_from_name("__execute__"),
                calldata,
                self._context(tx, ExecutionMode.EXECUTE),
            )
        except Reverted as error:
            return {"validated": True, "reverted": str(error), "events": [], "steps": steps}
        self._write(state, cached)
        if asked.get("apply", True):
            self.now = state
        return {
            "validated": True,
            "reverted": None,
            "events": _events(call),
            "steps": steps + call.execution_resources.n_steps,
        }

    def keep(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Keep the state as that of a block."""
        self.kept[asked["number"]] = self.now.copy()
        return {}

    def back(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return to the state of a block; later ones are forgotten."""
        self.now = self.kept[asked["number"]].copy()
        self.kept = {n: state for n, state in self.kept.items() if n <= asked["number"]}
        return {}

    def storage(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return a value of a contract's storage."""
        state = self.kept[asked["state"]] if asked.get("state") is not None else self.now
        key = (int(asked["address"], 16), int(asked["key"], 16))
        return {"value": hex(state.storage.get(key, 0))}


def _numbers(texts: list[str]) -> list[int]:
    return [int(one, 16) for one in texts]


def _events(call: Any) -> list[dict[str, Any]]:
    found = []
    for one in call.gen_call_topology():
        for event in one.events:
            found.append((event.order, one.contract_address, event.keys, event.data))
    return [
        {"from": hex(at), "keys": [hex(k) for k in keys], "data": [hex(d) for d in data]}
        for _, at, keys, data in sorted(found, key=lambda event: event[0])
    ]


def _text(felt: int) -> str:
    plain = felt.to_bytes(32, "big").lstrip(b"\0")
    text = plain.decode("ascii", "replace")
    return f"{felt:#x} ('{text}')" if text and text.isascii() and text.isprintable() else hex(felt)


def _panic(felts: Any) -> str:
    """Return a panic as nodes write it: the innermost reason first."""
    return "(" + ", ".join(_text(one) for one in felts) + ")"


def _reason(message: str) -> str:
    """Return an error of the engine, its numbers with the text that they hold."""
    head = message.strip().splitlines()
    return _FELTS.sub(lambda m: _text(int(m[0], 16)), head[0]) if head else "failed"


def main() -> None:
    """Answer requests until the input ends."""
    engine = Engine()
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = getattr(engine, asked["do"])(asked)
        except Reverted as error:
            answer = {"error": "reverted", "reason": str(error)}
        except Exception as error:  # noqa: BLE001 - told to the node, which says it to the caller
            answer = {"error": "failed", "reason": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
