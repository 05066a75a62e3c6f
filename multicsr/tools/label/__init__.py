"""A page on which a person judges pairs of sentences."""
