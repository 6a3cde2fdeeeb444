"""Who is asking: wallet signatures, webhook signatures, shared secrets."""
