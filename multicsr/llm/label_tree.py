"""Labels as a model writes them: a tree of the tokens that spell the labels after a prompt.

A tokenizer may spell the label 4 with one token or with several, and with or without a blank before it. Every
spelling is a path of tokens, and paths may share their first tokens: after Qwen3's token for a blank, one of
six digits follows. The probability of a label is the sum over its paths of the product of the conditional
probabilities of their tokens, so the model is asked once after the prompt and once after each shared prefix.

Shapes: K paths that are read, L labels.
"""

from collections.abc import Callable, Collection, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from multicsr.errors import ConfigError

LABEL_SPELLINGS = 2
"""Version of the rules by which labels are spelled and their probabilities combined, for engines that have a
tokenizer. Version 1 read the single token of each label as the prompt set writes it."""
TokenPath = tuple[int, ...]
"""Token ids after the prompt."""


class LabelTree:
    """Tree of the spellings of all labels.

    A spelling ends after the first token that no other label shares, unless this token is a mere blank: after
    a blank the model may write anything. A spelling that continues as another label (1 and 10) stands for the
    texts that do not continue so.
    """

    paths: list[TokenPath]
    """The K paths whose last token the model must be asked for, shorter ones first."""
    prefixes: list[TokenPath]
    """Token sequences after which tokens are read, shorter ones first; the first one is empty."""

    def __init__(
        self,
        labels: Sequence[str],
        spellings: Sequence[Collection[TokenPath]],
        is_blank: Callable[[int], bool],
    ) -> None:
        """Build the tree.

        Args:
            labels: the L labels, for messages.
            spellings: for each label the paths that spell it; equal paths count once.
            is_blank: returns True for a token that holds nothing but white space.

        Raises:
            ConfigError: a label has no spelling, or two labels have the same one.
        """
        owners: dict[TokenPath, set[int]] = {}
        for i, paths in enumerate(spellings):
            if not paths:
                raise _error(f"cannot write the score label {labels[i]!r}")
            for prefix in {prefix for path in paths for prefix in _prefixes(path)}:
                owners.setdefault(prefix, set()).add(i)
        self._num_labels = len(labels)
        self._label_of: dict[TokenPath, int] = {}
        for i, paths in enumerate(spellings):
            for path in paths:
                alone = (p for p in _prefixes(path) if owners[p] == {i} and not is_blank(p[-1]))
                other = self._label_of.setdefault(next(alone, path), i)
                if other != i:
                    both = f"{labels[other]!r} and {labels[i]!r}"
                    raise _error(f"writes the score labels {both} with the same tokens")
        found = {prefix for end in self._label_of for prefix in _prefixes(end)}
        self.paths = sorted(found, key=lambda path: (len(path), path))
        self.prefixes = list(dict.fromkeys(path[:-1] for path in self.paths))

    @property
    def identity(self) -> Hashable:
        """Return a value that two trees share iff they read the same tokens for the same labels."""
        return self._num_labels, tuple(sorted(self._label_of.items()))

    @property
    def num_tokens(self) -> int:
        """Return the length of the longest path."""
        return len(self.paths[-1])

    @property
    def noise_factor(self) -> int:
        """Return the noise of a label's log-weight as a multiple of that of a logit.

        A logit moves by at most d; so a log-probability after a prefix moves by at most 2 d, since its
        normalisation moves, too. That of the first token is common to all labels and cancels.
        """
        positions = max(len(end) + (end in self.prefixes) for end in self._label_of)
        return 2 * positions - 1

    def tokens_after(self, prefix: TokenPath) -> list[int]:
        """Return the tokens that are read after one of the prefixes, in the order of `paths`."""
        return [path[-1] for path in self.paths if path[:-1] == prefix]

    def probabilities(self, log_p_K: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the probabilities of the labels, normalised over the labels.

        Args:
            log_p_K: [K] log-probability of the last token of each path after the tokens before it.

        Returns:
            [L] probabilities that sum to 1; NaN if the log-probabilities are not numbers.
        """
        log_p = dict(zip(self.paths, log_p_K, strict=True))
        log_weight_L = np.full(self._num_labels, -np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            for end, label in self._label_of.items():
                log_weight = sum(log_p[prefix] for prefix in _prefixes(end))
                if end in self.prefixes:
                    onward = sum(np.exp(log_p[(*end, token)]) for token in self.tokens_after(end))
                    log_weight += np.log1p(-min(onward, 1.0))
                log_weight_L[label] = np.logaddexp(log_weight_L[label], log_weight)
            weight_L = np.exp(log_weight_L - log_weight_L.max())
        probabilities_L: NDArray[np.float64] = weight_L / weight_L.sum()
        return probabilities_L


def _prefixes(path: TokenPath) -> list[TokenPath]:
    """Return the path's prefixes that are not empty, shorter ones first, and the path itself."""
    return [path[: i + 1] for i in range(len(path))]


def _error(problem: str) -> ConfigError:
    """Return the error for labels that a tokenizer cannot tell apart or write."""
    return ConfigError(
        f"generate.prompts: the model's tokenizer {problem}; change score_labels in the file of the prompt "
        "set, or set score.method to llm_stated"
    )
