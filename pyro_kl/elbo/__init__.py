"""ELBOs whose KL terms are exact wherever they can be."""
