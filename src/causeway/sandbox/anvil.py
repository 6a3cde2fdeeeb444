"""A local Ethereum node: anvil, as one process of ours, on a port and a chain of its own."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import aiohttp
from eth_account import Account as EthAccount

from causeway.base.errors import CausewayError, ConfigurationError

__all__ = ["AnvilNode", "DevAccount", "RpcFailure"]

#: The mnemonic every development node knows; its money is worth nothing anywhere.
MNEMONIC = "test test test test test test test test test test test junk"

_PLATFORMS = {
    ("Linux", "x86_64"): "anvil-linux-amd64",
    ("Linux", "aarch64"): "anvil-linux-arm64",
    ("Darwin", "x86_64"): "anvil-darwin-amd64",
    ("Darwin", "arm64"): "anvil-darwin-arm64",
}

_PR_SET_PDEATHSIG = 1


class RpcFailure(CausewayError):
    """The node answered with a JSON-RPC error."""


@dataclass(frozen=True)
class DevAccount:
    """An account of the node with money in it."""

    address: str
    private_key: str


def find_anvil() -> Path:
    """Return the node's program; `ConfigurationError` says how to get it when there is none.

    The platform's own binary is started, not the Node.js wrapper, so that one pid is the node.
    """
    named = os.environ.get("CAUSEWAY_ANVIL")
    if named:
        if not os.access(named, os.X_OK) or Path(named).is_dir():
            raise ConfigurationError(
                f"CAUSEWAY_ANVIL names no program: {named}",
                hint="set it to the path of anvil, or unset it and run `make setup`",
            )
        return Path(named)
    package = _PLATFORMS.get((platform.system(), platform.machine()))
    if package is not None:
        here = Path(__file__).resolve()
        for folder in (Path.cwd(), *Path.cwd().parents, *here.parents):
            program = folder / "node_modules" / "@foundry-rs" / package / "bin" / "anvil"
            if program.exists():
                return program
    raise ConfigurationError(
        "the local Ethereum node (anvil) is not installed",
        hint="run `make setup` in the project's folder, or set CAUSEWAY_ANVIL to its program",
    )


#: Loaded before there is a child: between fork and exec nothing may wait for a lock.
_libc: ctypes.CDLL | None = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with(parent: int) -> None:
    """Have the kernel end the node when the process that started it is gone (Linux).

    By SIGKILL: a paused node would keep any other signal waiting, and live on. The kernel counts
    the thread that started the node as its parent, so start nodes from one that stays.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)


def _last(words: IO[bytes]) -> str:
    """Return the end of what the program complained about."""
    words.seek(0)
    return words.read().decode(errors="replace").strip()[-500:] or "is its port taken?"


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class AnvilNode:
    """A running node."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        port: int,
        chain_id: int,
        accounts: tuple[DevAccount, ...],
        session: aiohttp.ClientSession,
    ) -> None:
        self.process = process
        self.port = port
        self.chain_id = chain_id
        self.accounts = accounts
        self._session = session
        self._ids = 0
        #: Held from looking a nonce up until it is used: a wallet may send through several
        #: contracts at once.
        self.sending = asyncio.Lock()

    @property
    def url(self) -> str:
        """Its JSON-RPC address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Its WebSocket address."""
        return f"ws://127.0.0.1:{self.port}"

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        *,
        block_time_s: float | None = None,
        mnemonic: str = MNEMONIC,
        chain_id: int | None = None,
        port: int | None = None,
        extra_args: Sequence[str] = (),
    ) -> AsyncGenerator[AnvilNode, None]:
        """Run a node until the block is left.

        Blocks come with each transaction, or every `block_time_s` seconds. The chain id is random
        unless one is given, and is checked, so that a stranger's node is never written to.
        `ConfigurationError` when there is no anvil, `CausewayError` with its words when it ends.
        """
        if chain_id is None:
            chain_id = 1_000_000_000 + secrets.randbelow(1_000_000_000)
        program = find_anvil()
        accounts = _accounts(mnemonic)
        timing = [] if block_time_s is None else ["--block-time", str(block_time_s)]
        options = ["--chain-id", str(chain_id), "--mnemonic", mnemonic, "--accounts", "10"]
        line = [str(program), *options, "--silent", *timing, *extra_args]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
            with tempfile.TemporaryFile() as words:
                node = None
                # A free port may be taken between our look and the node's.
                for _ in range(5 if port is None else 1):
                    words.seek(0)
                    words.truncate()
                    chosen = _free_port() if port is None else port
                    node = await cls._try(line, chosen, chain_id, words, accounts, session)
                    if node is not None:
                        break
                if node is None:
                    raise CausewayError(f"the local Ethereum node did not start: {_last(words)}")
            try:
                yield node
            finally:
                await node.stop()

    @classmethod
    async def _try(
        cls,
        line: Sequence[str],
        port: int,
        chain_id: int,
        words: IO[bytes],
        accounts: tuple[DevAccount, ...],
        session: aiohttp.ClientSession,
    ) -> AnvilNode | None:
        """Start the program on a port; None when it ended at once or a stranger answers there."""
        process = await asyncio.create_subprocess_exec(
            *(*line, "--port", str(port)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=words,
            preexec_fn=partial(_die_with, os.getpid()),
        )
        node = cls(process, port, chain_id, accounts, session)
        ours = False
        try:
            ours = await node._answers()
        finally:  # also when we are cancelled meanwhile
            if not ours:
                await node.stop()
        return node if ours else None

    async def _answers(self, seconds: float = 20) -> bool:
        """Wait until the node answers with its chain id; False when it ends or another answers."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.process.returncode is None:
                    try:
                        return int(await self.rpc("eth_chainId"), 16) == self.chain_id
                    except (aiohttp.ClientError, OSError):
                        await asyncio.sleep(0.02)
                    except (CausewayError, LookupError, TypeError, ValueError):
                        return False  # whoever holds the port, it is no Ethereum node
        return False

    async def rpc(self, method: str, *params: Any) -> Any:
        """Ask the node; `RpcFailure` carries the text of its error."""
        self._ids += 1
        body = {"jsonrpc": "2.0", "id": self._ids, "method": method, "params": list(params)}
        async with self._session.post(self.url, json=body) as response:
            answer = await response.json()
        if "error" in answer:
            raise RpcFailure(f"{method}: {answer['error'].get('message')}", error=answer["error"])
        return answer["result"]

    async def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Ask for many things at once, answers in the order of `calls`.

        `RpcFailure` carries the text of the first error, in that order; the others were done.
        """
        first = self._ids + 1
        self._ids += len(calls)
        answers: dict[int, Any] = {}
        # A hundred a request: the node refuses bodies of more than 2 MB.
        for start in range(0, len(calls), 100):
            body = [
                {"jsonrpc": "2.0", "id": first + n, "method": calls[n][0], "params": calls[n][1]}
                for n in range(start, min(start + 100, len(calls)))
            ]
            async with self._session.post(self.url, json=body) as response:
                answers.update({answer["id"]: answer for answer in await response.json()})
        ordered = [answers[first + n] for n in range(len(calls))]
        for (method, _), answer in zip(calls, ordered, strict=True):
            if "error" in answer:
                raise RpcFailure(
                    f"{method}: {answer['error'].get('message')}", error=answer["error"]
                )
        return [answer["result"] for answer in ordered]

    async def mine(self, blocks: int = 1) -> None:
        """Make that many blocks at once."""
        await self.rpc("anvil_mine", hex(blocks))

    async def height(self) -> int:
        """Return the newest block's number."""
        return int(await self.rpc("eth_blockNumber"), 16)

    async def reorg(self, depth: int, transactions: Sequence[tuple[Any, int]] = ()) -> None:
        """Replace the newest `depth` blocks by as many others, holding only `transactions`.

        Each is a raw transaction (hex) or its fields, and the place of its block among the new.
        """
        await self.rpc("anvil_reorg", depth, [list(pair) for pair in transactions])

    async def rollback(self, depth: int) -> None:
        """Take the newest `depth` blocks away: the chain is shorter afterwards."""
        await self.rpc("anvil_rollback", depth)

    def pause(self) -> None:
        """Stop the node in its tracks (SIGSTOP): it accepts connections and never answers.

        Nothing is answered any more once this returns: the signal is only on its way when it is
        sent, and a thread of the node could still serve a request (Linux; elsewhere it may).
        """
        self.process.send_signal(signal.SIGSTOP)
        if sys.platform == "linux":
            with suppress(ChildProcessError):  # it ended meanwhile, and was reaped
                # WNOWAIT leaves the news for whoever waits for the process.
                how = os.WSTOPPED | os.WEXITED | os.WNOWAIT
                os.waitid(os.P_PID, self.process.pid, how)

    def resume(self) -> None:
        """Let a paused node go on."""
        self.process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End the node and wait until it is gone."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                async with asyncio.timeout(5):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


def _accounts(mnemonic: str) -> tuple[DevAccount, ...]:
    EthAccount.enable_unaudited_hdwallet_features()
    made: list[DevAccount] = []
    for number in range(10):
        account = EthAccount.from_mnemonic(mnemonic, account_path=f"m/44'/60'/0'/0/{number}")
        made.append(DevAccount(account.address, "0x" + bytes(account.key).hex()))
    return tuple(made)
