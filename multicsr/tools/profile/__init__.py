"""A stage run under a profiler, and a page that shows what its time went to (`multicsr profile`)."""

from multicsr.tools.profile.run import STAGES, profile

__all__ = ["STAGES", "profile"]
