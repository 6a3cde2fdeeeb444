"""Alert rules: what they observe, when they fire, and who is told."""
