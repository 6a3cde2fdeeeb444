"""Why a transaction is where it is, in a sentence for a person."""

from __future__ import annotations

from causeway.relayer.views import TransactionView

_PLAIN = {
    "planned": "it is planned; nothing is signed yet",
    "signed": "it is signed and stored; no provider has said yet that it took it",
    "sent": "a provider has it; it waits to be mined",
    "reverted": "the contract refused it",
    "lost": "another transaction took its nonce",
    "dropped": "it was dropped before anything was signed",
    "cancelled": "a transfer of nothing took its nonce: it was cancelled",
}


def reason(view: TransactionView) -> str:
    """Return the reason for a transaction's state in words."""
    state = view.state
    if view.waiting is not None and state in ("planned", "signed", "sent"):
        return f"{_PLAIN[state]}: {view.waiting}"
    if state == "sent" and view.cancel_requested_at is not None:
        return "it is being cancelled; the original may still be mined first"
    receipt = view.receipt
    if state == "mined" and receipt is not None:
        outcome = "and did its work" if receipt.status == 1 else "and was refused by the contract"
        return f"it is in block {receipt.block_number} {outcome}; that may still change"
    if state == "confirmed" and receipt is not None:
        final = "" if view.final_at is None else ", for good"
        return f"it is confirmed in block {receipt.block_number}{final}"
    said = (view.error or {}).get("reason")
    if said is None and state == "dropped":
        said = next((e.detail.get("reason") for e in view.events if e.what == "dropped"), None)
    return f"{_PLAIN[state]}: {said}" if said else _PLAIN[state]
