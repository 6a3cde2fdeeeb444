"""Who is asking: wallet signatures, tokens, webhook signatures, shared secrets."""
