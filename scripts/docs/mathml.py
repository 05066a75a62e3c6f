"""A hook of MkDocs: show equations as MathML, which browsers render without a script.

Equations are written as GitHub reads them: a fence ```` ```math ````, or ``$`...`$`` in a line.
"""

import re

from latex2mathml.converter import convert

_BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"\$`([^`]+)`\$")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Return the page with every equation replaced by MathML."""
    markdown = _BLOCK.sub(
        lambda found: f'<div class="equation">{convert(found[1].strip(), display="block")}</div>', markdown
    )
    return _INLINE.sub(lambda found: convert(found[1]), markdown)
