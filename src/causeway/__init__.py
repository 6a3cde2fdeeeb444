"""Causeway: what happened elsewhere becomes what happens next, exactly once."""

__version__ = "0.1.0"
