"""Labels with which LLMs announce a sentence, such as `Output sentence:`.

A label is judged relative to the premise: a label whose subject the premise has, too, belongs to the topic.
"""

import re


def _set(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


_SUBJECTS = _set("""
    sentence sentences phrase statement expression paraphrase paraphrased paraphrasing rephrased rephrasing
    reworded rewording rewritten rewrite rewriting hypothesis entailment entailed contradiction contradictory
    opposing output answer response reply negation negated
""")
"""Words of which a label of several words has at least one."""
_LABELS = _SUBJECTS | _set("""
    true false opposite alternative alternatively contrasting contrast original input revised revision
    modified altered result translation version premise correction
    satz antwort ausgabe umschreibung widerspruch zin antwoord réponse oración frase respuesta paráfrasis
    contradicción resposta contradição risposta parafrasi kalimat jawaban sagot pangungusap cevap cümle
    odpowiedź zdanie ответ предложение відповідь речення الجواب الإجابة الجملة תשובה उत्तर वाक्य
    句子 答案 回答 输出 输出句子 改写 释义 輸出 答え 出力 出力文 답변 문장 출력
""")
"""Words that are a label alone. Those of other languages mean sentence, answer, output or paraphrase."""
_BESIDES = _set("""
    a an the is are be can could would may might should here here's this that it its it's my your our one
    another possible with of to for in as i i'm i'd i've you and or more slightly also referring refer looking
    following below above same meaning idea new given provided different sure certainly course okay ok
    absolutely great please example concise simplified simple common natural idiomatic updated corrected
    transformed text way using words based on generated created made changed alternate negative entails
    contradicts correct final best question
""")
"""Words that a label may have besides."""
_KNOWN = _LABELS | _BESIDES
_MOST_WORDS = 16
_HEAD = re.compile(r"([^:：]{2,120}?)\s*[:：]\s*(?=\S)")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_NAMES_PREMISE = re.compile(r"\b(?:original|input|given|provided|premise)\b[^:：]*[:：]", re.IGNORECASE)


def words(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return [word.casefold().replace("’", "'") for word in _WORD.findall(text)]


def label_length(text: str, premise: str) -> int:
    """Return the number of characters of the label that a text begins with, with its colon; 0 if it has none.

    A label is one word of `_LABELS`, perhaps with a number, or some words that all belong to the talk about
    the task.
    """
    head = _HEAD.match(text)
    if head is None:
        return 0
    found = [word for word in words(head[1]) if not (word.isdigit() and len(word) == 1)]
    subjects = (_LABELS if len(found) == 1 else _SUBJECTS).intersection(found)
    is_label = bool(subjects) and len(found) <= _MOST_WORDS and _KNOWN.issuperset(found)
    return head.end() if is_label and subjects.isdisjoint(words(premise)) else 0


def is_label_alone(text: str, premise: str) -> bool:
    """Return True if a text is a label with nothing behind its colon."""
    return label_length(f"{text} x", premise) == len(text) + 1


def names_premise(text: str) -> bool:
    """Return True if a text begins with a label of the premise, such as `Original sentence:`."""
    return _NAMES_PREMISE.match(text) is not None or _NAMES_PREMISE.search(text[:60]) is not None
