"""Causeway: what happened elsewhere becomes what happens next, exactly once."""
