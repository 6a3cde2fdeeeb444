"""Health, metrics: what the people who operate it look at."""
