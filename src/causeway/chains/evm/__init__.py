"""Ethereum-like chains over JSON-RPC."""
