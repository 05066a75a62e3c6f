"""Export of an encoder to other formats (`multicsr export`), each checked against the original."""

from multicsr.tools.export.formats import MIN_COSINE, ExportFormat, format_named
from multicsr.tools.export.run import export_encoder

__all__ = ["MIN_COSINE", "ExportFormat", "export_encoder", "format_named"]
