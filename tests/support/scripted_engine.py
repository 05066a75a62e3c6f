"""An engine that follows a script, for tests of what is done with the texts of an LLM."""

import numpy as np

from multicsr.llm.base import Completion, Rejection, Usage
from multicsr.rows import Reason


def done(text, finished=True):
    return Completion(text, len(text.split()), finished)


class Scripted:
    """An engine that says what the premise asks for."""

    batches_at_once = 1
    batch_size = None
    rows_per_commit = None

    def __init__(self, pairs, replies):
        self.usage = Usage()
        self._pairs, self._replies = pairs, replies
        self.batches = []
        self.pairs = []

    def generate_pairs(self, pairs, row_ids):
        self.batches.append([pair.premise for pair in pairs])
        self.pairs += pairs
        return [self._pairs.get(pair.premise, self._default(pair.premise)) for pair in pairs]

    def _default(self, premise):
        return done(f"Fine, {premise}"), done(f"It is not fine that {premise}")

    def label_probabilities(self, prompts, labels):
        rejected = Rejection(Reason.PROMPT_TOO_LONG, "scoring")
        return [rejected if "Long hypothesis" in prompt else np.eye(6)[4] for prompt in prompts]

    def reply(self, prompts, row_ids, max_new_tokens):
        return [done(next((r for h, r in self._replies.items() if h in prompt), "4.5")) for prompt in prompts]
