"""Offline-first sync: what devices changed meanwhile, merged so that nothing is silently lost."""
