"""Stages, schedules and leased loops: durable steps of work on rows."""
