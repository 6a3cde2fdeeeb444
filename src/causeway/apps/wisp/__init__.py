"""Wisp: runners race ghosts: their own records, earlier runs, goals and friends."""
