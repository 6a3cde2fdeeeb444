"""A local Starknet: JSON-RPC 0.10 over an engine that executes compiled Cairo contracts."""
