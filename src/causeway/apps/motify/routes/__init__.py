"""Motify's HTTP, one file a resource."""
