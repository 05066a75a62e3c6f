"""Sentences on which an export is compared with the original."""

import numpy as np

from multicsr.storage.manifest import Manifest
from multicsr.storage.store import Store

_NUM_SENTENCES = 48
"""Number of sentences of a corpus that are encoded."""
_LONG = "The committee met again in the afternoon, and every member who was present spoke about the bridge. "
BUILT_IN = (
    "Yes.",
    "No, thank you.",
    "A man is playing a guitar.",
    "Nobody is playing a guitar.",
    "Two dogs run through the snow behind a fence.",
    "My invoice is wrong, and nobody answers the phone.",
    "I was billed twice for the same month.",
    "How do I reset my password?",
    "The train to Utrecht leaves at 17:42 from platform 8b.",
    "She never claimed that he stole the money.",
    "Prices rose by 3.5% in March, after a fall of 0.2% in February.",
    "Water boils at 100 degrees Celsius at sea level.",
    "print('hello'); x = [i ** 2 for i in range(10)]",
    "https://example.org/path?query=value&other=1",
    "ALL CAPITAL LETTERS ARE HARD TO READ",
    "Der Hund schläft unter dem Tisch.",
    "Le chat dort sur le canapé.",
    "El perro no está en casa.",
    "今天天气很好,我们去公园散步。",
    "Сегодня идёт дождь.",
    "الطقس جميل اليوم",
    "आज मौसम अच्छा है।",
    "A sentence with an emoji 🙂 and a rare word: antidisestablishmentarianism.",
    "The patient denies chest pain, shortness of breath, fever, or recent travel.",
    "Pursuant to section 4(b), the tenant shall give notice no later than thirty days before the end.",
    "In 1905 he published four papers, on light quanta, Brownian motion, relativity, and mass and energy.",
    _LONG * 2,
    _LONG * 6,
    _LONG * 30,
)
"""Sentences of many lengths and scripts, down to one word and up to more than 512 tokens."""


def corpus_sentences(store: Store, sentences: Manifest) -> list[str]:
    """Return sentences of a corpus, spread over its first file."""
    texts = store.read_table(sentences.files[0], ["text"])["text"]
    rows = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), _NUM_SENTENCES)).astype(int))
    return [str(text) for text in texts.take(rows).to_pylist()]
