"""Tables of texts in Markdown and in LaTeX."""

from collections.abc import Sequence

_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\n": " "}
)
"""Escapes of LaTeX."""
_MARKDOWN = str.maketrans({"|": r"\|", "\n": " "})
"""Escapes within a cell of a table in Markdown."""


def markdown_table(lines: Sequence[Sequence[str]], num_texts: int) -> str:
    """Return a table in Markdown.

    Args:
        lines: header and rows, with as many cells each.
        num_texts: number of columns, from the first, that stand on the left; the others are numbers.
    """
    rule = [*["---"] * num_texts, *["---:"] * (len(lines[0]) - num_texts)]
    escaped = [[cell.translate(_MARKDOWN) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in (escaped[0], rule, *escaped[1:]))


def latex_table(lines: Sequence[Sequence[str]], num_texts: int) -> str:
    """Return a table in LaTeX for the package booktabs; see `markdown_table`."""
    header, *rows = ([cell.translate(_LATEX) for cell in line] for line in lines)
    columns = "l" * num_texts + "r" * (len(header) - num_texts)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            rf"{' & '.join(header)} \\",
            r"\midrule",
            *(rf"{' & '.join(row)} \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )
