"""Phrases with which LLMs talk about the task instead of doing it, or decline it.

They are judged relative to the premise: where it has a word that makes a phrase suspicious, the phrase is
about the topic and not about the task. The phrases are English, because models fall back into English when
they talk about their task; only those with which a model calls itself one are known in further languages.
"""

import re

from multicsr.stages.generate.labels import is_label_alone, words

_NOUN = r"(?:sentence|phrase|paraphrase)s?"
_TOPIC = r"(?:this|the|both) (?:new |second |first |revised )?"
_TALKS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"\bthe (?:original|given|input|output|provided|following|above) (?:\w+ or )?{_NOUN}\b",
        r"\b(?:sentence|phrase) (?:or|and) (?:phrase|sentence)\b",
        rf"^{_TOPIC}{_NOUN} (?:[\"“'‘]|(?:means|implies|conveys|contradicts|describes|suggests|expresses"
        r"|challenges|contrasts|highlights|introduces)\b)",
        rf"^{_TOPIC}{_NOUN} (?:can be|could be|i'm|you)\b",
        rf"^{_TOPIC}{_NOUN} (?:is|are) (?:also |not )?(?:true|false|saying|describing|grammatical"
        r"|(?:in)?correct)\b",
        rf"^{_TOPIC}{_NOUN} is an? (?:[\w,]+ ){{0,8}}(?:statement|paraphrase|contradiction|question|example"
        r"|sentence|one)\b",
        rf"^{_TOPIC}{_NOUN} of the sentence\b",
        rf"^(?:sure|certainly|of course|okay|ok|here is|here's|here are)\b.*\b{_NOUN}\b",
        rf"\b(?:paraphrase|contradiction|entailment|negation|opposite) of (?:the|this|that) (?:\w+ )?{_NOUN}",
        r"\b(?:please|let's|let me|i (?:will|would|can|have)|i'll|i've) (?:\w+ )?(?:provide|rewrite|rewritten"
        rf"|rephrase|paraphrase|reword|create|generate)d?\b.*\b(?:{_NOUN}|input)\b",
        r"^(?:please )?(?:rewrite|rephrase|paraphrase|reword|revise|transform|generate|create) (?:an?|the|"
        rf"this) .*\b{_NOUN}\b",
        r"\bcan(?: also)? be (?:re-?written|rephrased|paraphrased|reworded) (?:as|to)\b",
        r"\b(?:original|opposing|opposite|alternate|alternative|contrasting|intended|same)"
        r" (?:or \w+ )?meaning\b",
        r"\b(?:alternate|alternative) (?:expression|wording)\b",
        rf"^{_TOPIC}{_NOUN} (?:should|must) be\b|^{_TOPIC}{_NOUN} is (?:not )?(?:entirely )?logical\b",
        r"\bcontrasting (?:the )?idea\b|\bcontrast to the original\b",
        r"\b(?:grounded in|contradicts) common sense\b",
        r"\b(?:contrast|alter|oppos)ing (?:and|or) (?:contrast|alter|oppos)ing\b",
        r"\bis an? (?:true|false) statement\b",
        r"\b(?:figurative language|metaphor|logical fallacy|grammatically (?:in)?correct|entailment)\b",
        r"\[(?:insert|your|the|add) [^\]]*\]",
    )
]
"""Patterns of talk about the task. A single noun is no sign of it: a statement, an idea or a job that entails
something belongs to many topics."""
_TOPICS = frozenset(
    re.findall(
        r"\w+",
        """sentence sentences phrase phrases paraphrase text input output rewrite rephrase paraphrase reword
        mean means meaning expression wording metaphor figurative grammar grammatical grammatically fallacy
        entail entails entailment contradiction insert""",
    )
)
"""Words whose presence in the premise makes talk about the task a part of the topic."""
_ALONE = frozenset(
    {"true", "false", "entailment", "contradiction", "opposite", "opposing", "paraphrase", "neutral", "n/a"}
)
"""Texts that are a label without a colon."""
_CANNOT = (
    r"\b(?:i(?:'m| am) (?:sorry|unable|not able)|i apologi[sz]e|unfortunately|sorry"
    r"|i (?:can ?not|can't|won't))\b"
)
_TASK_NOUN = (
    r"\b(?:request|sentence|phrase|paraphrase|statement|text|task|instructions?|prompt|input|content"
    r"|contradiction|entailment)\b"
)
_DECLINING = re.compile(
    rf"{_CANNOT}.{{0,60}}?\b(?:(?:assist|help)(?: you)? with (?:that|this)\b|fulfil|comply\b|(?:provide"
    rf"|generate|create|write|rewrite|rephrase|paraphrase|complete|answer|produce|continue)\b.{{0,40}}?{_TASK_NOUN})",
    re.IGNORECASE,
)
_AI = r"(?:ai|artificial intelligence|(?:large )?language model)"
_MACHINE = re.compile(
    rf"\bas an? {_AI}\b|\bi(?:'m| am) (?:just |only )?an? {_AI}\b"
    r"|\bals (?:ki|künstliche intelligenz|sprachmodell)\b"
    r"|\ben tant qu(?:'|’)(?:ia|intelligence artificielle|assistant)\b"
    r"|\bcomo (?:un |uma? )?(?:modelo de l(?:enguaje|inguagem)|ia)\b"
    r"|作为(?:一个|一名)?(?:ai|人工智能|语言模型)|(?:ai|言語モデル)として",
    re.IGNORECASE,
)
"""Phrases with which a model calls itself one."""
_MACHINE_TOPIC = re.compile(
    r"\b(?:ai|ia|ki|artificial|language model|chatbot|assistant)\b|人工智能|模型|言語モデル", re.IGNORECASE
)


def find_talk(text: str, premise: str) -> str | None:
    """Return the words of a text that talk about the task instead of the premise's topic, or None."""
    bare = text.casefold().strip(" .:!*")
    if is_label_alone(text, premise) or (bare in _ALONE and bare not in words(premise)):
        return text
    if not _TOPICS.isdisjoint(words(premise)):
        return None
    found = next((match for pattern in _TALKS if (match := pattern.search(text))), None)
    return found.group() if found else None


def find_declining(text: str, premise: str) -> str | None:
    """Return the words of a text with which a model declines the task, or None."""
    if (found := _MACHINE.search(text)) and not _MACHINE_TOPIC.search(premise):
        return found.group()
    found = _DECLINING.search(text.replace("’", "'"))
    if found is None or re.search(_CANNOT, premise.replace("’", "'"), re.IGNORECASE):
        return None
    return None if words(found.group())[-1] in words(premise) else found.group()
