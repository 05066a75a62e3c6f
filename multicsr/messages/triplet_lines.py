"""A triplet as lines of text."""

from collections.abc import Iterator


def triplet_lines(
    premise: str | None,
    entailment: str | None,
    contradiction: str | None,
    a: float | None,
    b: float | None,
) -> Iterator[str]:
    """Yield a line for the premise and for each hypothesis that there is, with its score, and a blank line.

    Args:
        premise: the premise.
        entailment: its entailment.
        contradiction: its contradiction.
        a: score of premise and entailment.
        b: score of premise and contradiction.
    """
    yield f"  premise        {premise}"
    for name, text, score in (("entailment", entailment, a), ("contradiction", contradiction, b)):
        if text is not None:
            yield f"  {name:<14} {text}{'' if score is None else f'  ({score:.2f})'}"
    yield ""
