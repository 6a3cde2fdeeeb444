"""Chains and the providers they are read through."""
