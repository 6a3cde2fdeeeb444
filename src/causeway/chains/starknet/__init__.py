"""Starknet: field elements, contract ABIs, the chain, its accounts. Speaks RPC 0.10."""
