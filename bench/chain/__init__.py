"""A recorded chain that benchmarks read: its blocks, and the node that serves them."""
