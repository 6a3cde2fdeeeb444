"""What everything stands on: errors, settings, logging, clock, ids, outgoing HTTP."""
