"""Preview of a run (`multicsr preview`): a few dozen rows through reading, writing, scoring and curation."""

from multicsr.tools.preview.run import preview
from multicsr.tools.preview.text import lines

__all__ = ["lines", "preview"]
