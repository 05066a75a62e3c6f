"""Sentences in the prompts of a prompt set, which a small model copies instead of doing the task."""

import re
from collections.abc import Iterable, Iterator

from multicsr.prompts import PromptSet
from multicsr.stages.generate.comparison import comparable

_LEAST_CHARACTERS = 8
"""Minimum length of a sentence; shorter parts of a prompt are words, which a good hypothesis may be."""
_QUOTED = re.compile(r"(?<!\w)['\"“‘«「](.+?)['\"”’»」](?!\w)")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")


def demonstrations(prompts: PromptSet) -> frozenset[str]:
    """Return the sentences in the generation prompts, in the form of `comparable`.

    They are the lines without a field, the parts of a line after a colon, the quoted parts, and each sentence
    of them: of a prompt without demonstrations, its instructions.
    """
    parts = [part for part in _parts(prompts) if "{" not in part]
    sentences = [sentence for part in parts for sentence in _SENTENCE_END.split(part)]
    return forms_of(parts + sentences)


def forms_of(texts: Iterable[str]) -> frozenset[str]:
    """Return the texts that are sentences, in the form of `comparable`."""
    return frozenset(form for form in map(comparable, texts) if len(form) >= _LEAST_CHARACTERS)


def _parts(prompts: PromptSet) -> Iterator[str]:
    """Yield every part of a prompt that may be a sentence."""
    for variant in prompts.variants():
        for instruction in (*variant.entailment, *variant.contradiction):
            for line in variant.layout.replace("{instruction}", instruction).splitlines():
                yield line
                yield from (match[1] for match in _QUOTED.finditer(line))
                yield from (line[match.end() :] for match in re.finditer(r"[:：]\s+", line))
