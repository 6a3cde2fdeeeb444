"""The verdict on one participant, from the evidence that was kept, recomputed and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from causeway.apps.motify import evidence
from causeway.apps.motify.context import MotifyContext
from causeway.apps.motify.models import Score, Settlement
from causeway.base.errors import InvalidInput, NotFound

_REASONS: Mapping[str, str] = {
    "no_connection": "nobody had connected an account for this wallet",
    "rejected": "the provider refused the credentials of this wallet",
    "no_data": "the provider did not have the data that was asked for",
    "unavailable": "the provider could not be asked until the deadline",
    "misconfigured": "this backend could not ask the provider, which was its own fault",
    "ordered": "the operator set one share for everybody",
}


@dataclass(frozen=True)
class Proved:
    """A document of evidence with its way to the root that was kept with the declaration."""

    document: str
    leaf: bytes
    proof: tuple[bytes, ...]
    root: bytes
    declared_bps: int | None
    declared_tx: str | None


async def prove(ctx: MotifyContext, challenge_id: int, wallet: str) -> Proved:
    """Return one participant's evidence; `NotFound` when none was kept."""
    async with ctx.database.sessions() as session:
        row = (
            await session.execute(
                select(Score, Settlement.evidence_root)
                .join(Settlement, Settlement.id == Score.settlement_id)
                .where(
                    Settlement.chain_id == ctx.settings.chain_id,
                    Settlement.contract_address == ctx.settings.contract,
                    Settlement.challenge_id == challenge_id,
                    Score.wallet == wallet,
                )
            )
        ).one_or_none()
        score, root = (None, None) if row is None else row
        if score is None or score.evidence is None or root is None:
            raise NotFound(f"there is no evidence of {wallet} in challenge {challenge_id}")
        leaves = await session.scalars(
            select(Score.leaf).where(
                Score.settlement_id == score.settlement_id, Score.leaf.is_not(None)
            )
        )
        tree = evidence.Tree([one for one in leaves if one is not None])
    leaf = evidence.leaf(score.evidence)
    return Proved(
        score.evidence,
        leaf,
        tuple(tree.proof(leaf)),
        bytes.fromhex(root.removeprefix("0x")),
        score.declared_bps,
        score.declared_tx,
    )


def exported(proved: Proved) -> dict[str, Any]:
    """Return evidence as it is given to the participant, and as `explain --file` takes it."""
    return {
        "document": proved.document,
        "leaf": "0x" + proved.leaf.hex(),
        "proof": ["0x" + one.hex() for one in proved.proof],
        "root": "0x" + proved.root.hex(),
    }


def imported(given: Any) -> Proved:
    """Return evidence from the form of `exported`; `InvalidInput` when it is none."""
    try:
        return Proved(
            str(given["document"]),
            _word(given["leaf"]),
            tuple(_word(one) for one in given["proof"]),
            _word(given["root"]),
            None,
            None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"this is no exported evidence: {error!r}") from None


def explain(proved: Proved) -> list[tuple[str, str]]:
    """Return the verdict line by line, each with its heading, everything computed again.

    Raises `InvalidInput` when the document does not lead to its result, or is not under the root.
    """
    body = evidence.check(proved.document)
    if evidence.leaf(proved.document) != proved.leaf or not evidence.proves(
        proved.root, proved.leaf, proved.proof
    ):
        raise InvalidInput("the evidence is not what the root was made of")
    result, rule, reading = body["result"], body["rule"], body["reading"]
    lines = [
        ("challenge", f"{body['challenge_id']} of {body['contract']} on chain {body['chain_id']}"),
        ("wallet", body["wallet"]),
        ("goal", f"{rule['api_type']} {rule['goal_type']}, {rule['goal_amount']}"),
        ("rule", f"engine version {rule['engine_version']}, {len(rule['days'])} days"),
    ]
    if reading is None:
        lines.append(("asked", "no reading counts"))
    else:
        account = reading["account"]
        who = account.get("name") or account.get("id")
        lines.append(("asked", f"{reading['provider']} about {who}: {_words(reading['asked'])}"))
        lines.append(("read at", reading["read_at"]))
    lines += [("day", _day(day)) for day in result["days"]]
    if body["backdated_days"]:
        lines.append(("backdated", ", ".join(body["backdated_days"])))
    if result["reason"] is not None:
        lines.append(("reason", _REASONS.get(result["reason"], result["reason"])))
    if result["ratio"] is not None:
        ratio = result["ratio"]
        lines.append(("ratio", f"{ratio['numerator']} / {ratio['denominator']}"))
    lines += [
        ("share", f"{result['percent_ppm']} ppm = {result['bps']} basis points"),
        ("stake", body["stake_minor_units"]),
        ("comes back", result["refund_minor_units"]),
        ("is given", result["donation_minor_units"]),
        ("evidence", f"in the tree of root 0x{proved.root.hex()}"),
    ]
    if proved.declared_bps is not None:
        agrees = "as computed" if proved.declared_bps == result["bps"] else "NOT as computed"
        where = f" in {proved.declared_tx}" if proved.declared_tx else ""
        lines.append(("on chain", f"{proved.declared_bps} basis points{where}: {agrees}"))
    return lines


def _words(asked: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in asked.items())


def _day(day: Mapping[str, Any]) -> str:
    value = "not read" if day["value"] is None else str(day["value"])
    mark = {True: " ✓", False: " ✗", None: ""}[day["achieved"]]
    return f"{day['date']}: {value}{mark}"


def _word(text: str) -> bytes:
    raw = bytes.fromhex(str(text).removeprefix("0x"))
    if len(raw) != 32:
        raise ValueError("a hash has 32 bytes")
    return raw
