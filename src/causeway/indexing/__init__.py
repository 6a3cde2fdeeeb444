"""Reading facts from a chain, in order, each exactly once, through reorganisations."""
