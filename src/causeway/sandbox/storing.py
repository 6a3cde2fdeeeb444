"""Importing bytes for a pinning service, rightly or as a fault wants it."""

from __future__ import annotations

from causeway.sandbox.dag import PRIVATE, Dag, ImportProfile, build
from causeway.sandbox.faults import Fault
from causeway.sandbox.state import State


def store(state: State, data: bytes, profile: ImportProfile, fault: Fault | None) -> Dag:
    """Import `data`, keep its blocks where the gateway finds them, and return the DAG."""
    if fault is not None and fault.kind == "wrong_cid":
        data += b"\n<!-- not what was sent -->\n"
    if fault is not None and fault.kind == "other_cid":
        profile = PRIVATE
    dag = build(data, profile)
    state.add_blocks(dag.blocks.items())
    return dag
