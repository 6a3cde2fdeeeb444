"""Benchmarks: one command each, a table for people, a JSON file for programs."""
