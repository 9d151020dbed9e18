"""How a guide draws each site, and which exact KL is valid there."""
