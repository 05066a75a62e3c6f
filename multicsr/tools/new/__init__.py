"""A configuration for a corpus, written from what is found in it (`multicsr new`)."""

from multicsr.tools.new.write import write_config

__all__ = ["write_config"]
