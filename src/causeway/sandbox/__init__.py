"""Local stand-ins for third-party services, and local chains."""
