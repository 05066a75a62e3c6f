"""A corpus that an LLM writes, by genre and topic (`multicsr premises`)."""

from multicsr.tools.premises.run import write_premises

__all__ = ["write_premises"]
