"""People's links to other services: OAuth flows, tokens kept encrypted, clients of providers."""
