"""Shipped prompt sets and what they send, for `multicsr prompts list` and `show`."""

from collections.abc import Iterator
from textwrap import wrap

from multicsr.prompts import PromptSet, load_prompts, shipped_prompt_sets

_WIDTH = 80
"""Characters in a line of the list."""
_PREMISE = "The library on Mill Street lends tools as well as books."
_HYPOTHESIS = "You can borrow a hammer at the library on Mill Street."


def list_sets() -> Iterator[str]:
    """Yield name, number of instructions and purpose of each shipped set, in lines of `_WIDTH` characters."""
    for name in shipped_prompt_sets():
        prompts = load_prompts(name)
        pools = f"{len(prompts.entailment)} + {len(prompts.contradiction)}"
        languages = f" (languages: {', '.join(sorted(prompts.languages))})" if prompts.languages else ""
        start = f"{name:<10} {pools:>5} instructions  "
        yield from wrap(
            f"{prompts.about}{languages}", _WIDTH, initial_indent=start, subsequent_indent=" " * len(start)
        )


def show_set(name: str) -> Iterator[str]:
    """Yield the lines of every prompt of a set, filled with an example.

    Args:
        name: a shipped set or a YAML file.

    Raises:
        ConfigError: there is no such set.
    """
    prompts = load_prompts(name)
    yield from (prompts.about, "") if prompts.about else ()
    for title, text in _filled(prompts):
        yield f"--- {title}"
        yield text
        yield ""
    yield f"score labels {prompts.score_labels}, stop strings {prompts.stop}"


def _filled(prompts: PromptSet) -> Iterator[tuple[str, str]]:
    """Yield each prompt of a set with its title, filled with an example."""
    for each in prompts.variants():
        _, _, language = each.name.partition(":")
        for side, pool in (("entailment", each.entailment), ("contradiction", each.contradiction)):
            for number, instruction in enumerate(pool):
                title = f"{side} {number}" + (f", language {language}" if language else "")
                yield title, each.generation(_PREMISE, instruction)
    yield "score", prompts.scoring(_PREMISE, _HYPOTHESIS)
