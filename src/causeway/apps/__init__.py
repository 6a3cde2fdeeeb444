"""Apps: each a backend built from the kernel, found by entry point."""
