"""Prompt sets: the texts that ask the LLM for an entailment, a contradiction or a score.

A prompt set is a YAML file: one of those beside this module, by name, or any path. Its content is part of
the fingerprint of the rows that were generated with it.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from multicsr.artifacts import FileRecord
from multicsr.config.mistakes import explain
from multicsr.config.yaml_file import load_yaml
from multicsr.errors import ConfigError
from multicsr.language_tags import spelled_parts, tag_parts
from multicsr.prompts.demonstrations import Demonstration, answer_quotes, answered, split_at_question
from multicsr.prompts.infilling import mask_words
from multicsr.storage.local_copy import local_copy

AUTO = "auto"
"""Name that stands for the prompt set which suits the LLM (`multicsr.llm.prompt_choice`)."""
_SHIPPED = Path(__file__).parent
_FIELD = re.compile(r"\{(instruction|premise|hypothesis|masked_([1-8]0))\}")
_PREMISE = re.compile(r"\{(?:premise|masked_[1-8]0)\}")
"""A field that is filled by the premise, or by the premise with a part of its words masked, in percent."""
_SCORE_SCALE = 5.0
NonEmpty = Annotated[list[str], Field(min_length=1)]


class PromptPair(NamedTuple):
    """The two prompts of one premise. Each is the other's noisy instruction (MultiCSR Eq. 1-2)."""

    entailment: str
    contradiction: str
    entailment_id: int
    contradiction_id: int
    premise: str


class LanguagePrompts(FileRecord):
    """Generation prompts of a set for the sentences of one language."""

    layout: str | None = None
    """A generation prompt; unset: that of the set."""
    entailment: NonEmpty
    """The pool from which an entailment instruction is drawn."""
    contradiction: NonEmpty
    """The pool from which a contradiction instruction is drawn."""


class PromptSet(FileRecord):
    """Instruction pools and layouts, as read from YAML."""

    name: str
    """Name of the set, which is written into every generated row."""
    about: str = ""
    """For which LLMs the set is, in one line for `multicsr prompts list`. It does not reach the LLM."""
    layout: str
    """A generation prompt, with `{instruction}` and, here or in the instructions, `{premise}`. `{masked_30}`
    is the premise with 30 % of its words masked; 10 to 80 are possible (`infilling.py`)."""
    entailment: NonEmpty
    """The pool from which an entailment instruction is drawn."""
    contradiction: NonEmpty
    """The pool from which a contradiction instruction is drawn."""
    score: str
    """A scoring prompt, with `{premise}` and `{hypothesis}`."""
    score_labels: Annotated[list[str], Field(min_length=6, max_length=6)]
    """The replies whose probabilities give the expected score; label i of 0..5 is worth i points. Blanks
    around a label do not matter: the model's tokenizer decides by which tokens it is written."""
    score_scale: Annotated[float, Field(gt=0)] = _SCORE_SCALE
    """Highest score that the scoring prompt names, with 0 as the lowest. Stated scores are multiplied by
    5 / `score_scale`."""
    stop: list[str] = ["\n"]
    """Stop strings: generation ends before the first of them that does not stand at the very beginning."""
    chat: bool = True
    """Use the chat template of the LLM; false: a chat model continues the prompt as a base model does, unless
    `llm.chat_template` is true. An endpoint applies its template to every prompt."""

    languages: dict[str, LanguagePrompts] = {}
    """Generation prompts for rows of other languages, by language tag. A row whose language has none gets
    those of the set. Scores are always asked for by `score`."""

    @field_validator("languages")
    @classmethod
    def _lower_case(cls, languages: dict[str, LanguagePrompts]) -> dict[str, LanguagePrompts]:
        return {tag.lower(): prompts for tag, prompts in languages.items()}

    @field_validator("name")
    @classmethod
    def _without_colon(cls, name: str) -> str:
        if ":" in name:
            raise ValueError("a name has no colon: NAME:LANGUAGE is the set for a language")
        return name

    @model_validator(mode="after")
    def _variants_are_prompt_sets(self) -> "PromptSet":
        for tag in self.languages:
            try:
                PromptSet.model_validate({**self.for_language(tag).model_dump(), "name": self.name})
            except ValidationError as error:
                raise ValueError(f"language {tag}: {error.errors()[0]['msg']}") from error
        return self

    @model_validator(mode="after")
    def _fields_are_there(self) -> "PromptSet":
        for instruction in (*self.entailment, *self.contradiction):
            if not _PREMISE.search(self.layout.replace("{instruction}", instruction)):
                raise ValueError("every generation prompt needs {premise}")
        if "{instruction}" not in self.layout:
            raise ValueError("layout needs {instruction}")
        if "{premise}" not in self.score or "{hypothesis}" not in self.score:
            raise ValueError("score needs {premise} and {hypothesis}")
        labels = {label.strip() for label in self.score_labels}
        if "" in labels or len(labels) < len(self.score_labels):
            raise ValueError("score_labels must differ by more than blanks, and none may be blank")
        return self

    def for_language(self, language: str) -> "PromptSet":
        """Return the set for rows of a language, named such as `fewshot:tl`; the set itself if it has none.

        Args:
            language: language tag of a row. Prompts for `pt` serve `pt-BR`, too, if it has none of its own,
                and those for `tl` serve `fil` and `tgl`. Of the codes of one language, that of the row is
                preferred.
        """
        tags = {tuple(tag_parts(tag)): tag for tag in self.languages}
        tags |= {tuple(spelled_parts(tag)): tag for tag in self.languages}
        spelled, usual = tuple(spelled_parts(language)), tuple(tag_parts(language))
        prefixes = (parts[:length] for length in range(len(usual), 0, -1) for parts in (spelled, usual))
        tag = next((tags[parts] for parts in prefixes if parts in tags), None)
        if tag is None:
            return self
        prompts = self.languages[tag].model_dump(exclude_none=True)
        return self.model_copy(update={**prompts, "name": f"{self.name}:{tag}", "languages": {}})

    def variants(self) -> "list[PromptSet]":
        """Return the set itself, and the set for each of its languages."""
        return [self, *(self.for_language(tag) for tag in self.languages)]

    @property
    def masks_words(self) -> bool:
        """Return True if a generation prompt has the premise with masked words, for the LLM to fill."""
        return any(
            match[0] != "{premise}"
            for each in self.variants()
            for instruction in (*each.entailment, *each.contradiction)
            for match in _PREMISE.finditer(each.layout + instruction)
        )

    def pair(self, premise: str, row_id: str, seed: int, shown: Sequence[Demonstration] = ()) -> PromptPair:
        """Draw one instruction from each pool, as a function of (row id, seed) alone (MultiCSR Sec. 3.1).

        Args:
            premise: the premise.
            row_id: id of its row.
            seed: `seed` of the configuration.
            shown: demonstrations, in the order in which they are shown. Each prompt, and so each noisy
                instruction of Eq. 2, has their hypotheses of its own direction.
        """
        digest = hashlib.blake2b(f"{seed}:{row_id}".encode(), digest_size=16).digest()
        entailment_id = int.from_bytes(digest[:8], "big") % len(self.entailment)
        contradiction_id = int.from_bytes(digest[8:], "big") % len(self.contradiction)
        return PromptPair(
            self.generation(
                premise, self.entailment[entailment_id], [(each.premise, each.entailment) for each in shown]
            ),
            self.generation(
                premise,
                self.contradiction[contradiction_id],
                [(each.premise, each.contradiction) for each in shown],
            ),
            entailment_id,
            contradiction_id,
            premise,
        )

    def generation(self, premise: str, instruction: str, shown: Sequence[tuple[str, str]] = ()) -> str:
        """Return the prompt for one premise and one instruction of a pool.

        Args:
            premise: the premise.
            instruction: the instruction.
            shown: premises of demonstrations with their hypotheses. They stand before the question of the
                prompt, [D; x; I] of MultiCSR Appendix G, each as this question with its answer, in quotation
                marks if the answers of the set's own examples have them.
        """
        head, question = split_at_question(self.layout.replace("{instruction}", instruction), _PREMISE)
        first, last = answer_quotes(head, question, _PREMISE)
        examples = (
            answered(_fill(question, premise=text), f"{first}{answer}{last}", self.stop)
            for text, answer in shown
        )
        return "".join([_fill(head, premise=premise), *examples, _fill(question, premise=premise)])

    def scoring(self, premise: str, hypothesis: str) -> str:
        """Return the prompt that asks for the similarity of two sentences (MultiCSR Eq. 3)."""
        return _fill(self.score, premise=premise, hypothesis=hypothesis)

    def writing_digest(self) -> str:
        """Return a hash of every byte that reaches the LLM when it writes, and of the set's name.

        The name is part of it because it stands in the rows.
        """
        return self._digest({"name", "layout", "entailment", "contradiction", "stop"})

    def scoring_digest(self) -> str:
        """Return a hash of every byte that reaches the LLM when it scores."""
        return self._digest({"score", "score_labels"})

    def _digest(self, fields: set[str]) -> str:
        # Left out at their defaults, so that the digests of older sets stay.
        if not self.chat:
            fields = fields | {"chat"}
        if self.score_scale != _SCORE_SCALE and "score" in fields:
            fields = fields | {"score_scale"}
        if self.languages and "entailment" in fields:
            fields = fields | {"languages"}
        return hashlib.blake2b(self.model_dump_json(include=fields).encode(), digest_size=8).hexdigest()


def _fill(template: str, **fields: str) -> str:
    """Replace the fields in one pass, so that a premise with braces in it stays as it is."""

    def value(match: re.Match[str]) -> str:
        percent = match.group(2)
        return mask_words(fields["premise"], int(percent)) if percent else fields[match.group(1)]

    return _FIELD.sub(value, template)


def shipped_prompt_sets() -> list[str]:
    """Return the names of the prompt sets that `load_prompts` finds without a path."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def prompts_for_workers(name_or_path: str) -> str:
    """Return the name of a shipped prompt set, or the text of the file, which other machines may lack.

    Raises:
        ConfigError: there is no such set, or the file cannot be read.
    """
    if "\n" in name_or_path or name_or_path in shipped_prompt_sets():
        return name_or_path
    return f"{_text_of(_path_of(name_or_path))}\n"  # by the line break it is known as text


def load_prompts(name_or_path: str) -> PromptSet:
    """Read a prompt set by name, from a YAML file, or from the text of one (see `prompts_for_workers`).

    Raises:
        ConfigError: there is no such set, or the file is not a prompt set.
    """
    if "\n" in name_or_path:
        return _parse(name_or_path, "the prompt set")
    path = _path_of(name_or_path)
    return _parse(_text_of(path), str(path))


def _text_of(path: Path) -> str:
    """Return the text of a file of prompts.

    Raises:
        ConfigError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"generate.prompts: {path} is not UTF-8 (byte {error.start}); convert it"
        ) from error
    except OSError as error:
        raise ConfigError(f"generate.prompts: cannot read {path}: {error.strerror or error}") from error


def _parse(text: str, source: str) -> PromptSet:
    """Read a prompt set from the text of a file.

    Raises:
        ConfigError: it is none; one line for each mistake.
    """
    try:
        tree, twice = load_yaml(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(
            f"generate.prompts: {source} is not YAML: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(tree, dict):
        raise ConfigError(f"generate.prompts: {source}: expected keys such as `layout:`, found no mapping")
    mistakes = twice
    try:
        prompts = PromptSet.model_validate(tree)
    except ValidationError as error:
        mistakes += map(_mistake, error.errors())
    if mistakes:
        raise ConfigError(*(f"generate.prompts: {source}: {line}" for line in mistakes))
    return prompts


def _mistake(problem: ErrorDetails) -> str:
    """Return one line about a mistake in a prompt set."""
    place = ".".join(map(str, problem["loc"]))
    match problem["type"]:
        case "extra_forbidden":
            kind = LanguagePrompts if len(problem["loc"]) > 1 else PromptSet
            return f"unknown key {place!r}; known keys: {', '.join(kind.model_fields)}"
        case "model_type":
            return f"{place}: write keys with values, such as `{{entailment: [...], contradiction: [...]}}`"
    return explain(problem)


def _path_of(name_or_path: str) -> Path:
    """Return the path of the file of a prompt set.

    Raises:
        ConfigError: there is no such set.
    """
    path = _SHIPPED / f"{name_or_path}.yaml"
    if not path.is_file():
        path = local_copy(name_or_path)
    if not path.is_file():
        names = ", ".join(shipped_prompt_sets())
        raise ConfigError(
            f"generate.prompts: no prompt set {name_or_path!r}; use one of {names}, or a YAML file"
        )
    return path
