"""GLISK: mints become images, pinned content and on-chain reveals."""
