"""Channels that clients follow over WebSockets: in order, resumed, never waited for."""
