"""Outbound transactions: written down before they are sent, watched until final."""
