"""The sentence in what an LLM wrote; a good sentence that looks like a wrapper stays as it is."""

import pytest

from multicsr.stages.generate.cleaning import CleaningRule, clean

DOG = "A dog runs."
WRAPPED = [
    ("The dog moves.", "The dog moves.", ""),
    ("  The dog\u00a0moves. \n", "The dog moves.", ""),
    ("\n\nThe dog moves.", "The dog moves.", ""),
    ('"The dog moves."', "The dog moves.", "quotes"),
    ('"The dog moves".', "The dog moves.", "quotes"),
    ("“The dog moves.”", "The dog moves.", "quotes"),
    ("'The dog's master moves.'", "The dog's master moves.", "quotes"),
    ("‘The dog’s master moves.’", "The dog’s master moves.", "quotes"),
    ("«Le chien court.»", "Le chien court.", "quotes"),
    ("„Der Hund rennt.“", "Der Hund rennt.", "quotes"),
    ("「犬が走る。」", "犬が走る。", "quotes"),
    ('"The dog moves.', "The dog moves.", "quotes"),
    ('The dog moves."', "The dog moves.", "quotes"),
    ('The original sentence is: "A dog runs."', DOG, "label quotes"),
    ("Here is the output sentence you asked for: The dog moves.", None, ""),
    ("Here is the output sentence: The dog moves.", "The dog moves.", "label"),
    ("Sure! Here's a paraphrased version of the sentence: The dog moves.", "The dog moves.", "label"),
    ("True: The dog moves.", "The dog moves.", "label"),
    ("Opposing: The dog sleeps.", "The dog sleeps.", "label"),
    ("Opposing Sentence: The dog sleeps.", "The dog sleeps.", "label"),
    ("**Output:** The dog sleeps.", "The dog sleeps.", "markdown label"),
    ("Output sentence 2: The dog sleeps.", "The dog sleeps.", "label"),
    ("The correct answer is: The dog sleeps.", "The dog sleeps.", "label"),
    ('The answer to your question is: "The dog sleeps."', "The dog sleeps.", "label quotes"),
    ("Alternative 1: The dog sleeps.", "The dog sleeps.", "label"),
    ('The sentence can be rephrased as: "The dog moves."', "The dog moves.", "label quotes"),
    ('A possible alternative expression could be: "The dog moves."', "The dog moves.", "label quotes"),
    ("Antwort: Der Hund schläft.", "Der Hund schläft.", "label"),
    ("答案：狗在睡觉。", "狗在睡觉。", "label"),
    ("Ответ: Собака спит.", "Собака спит.", "label"),
    ("Here is the sentence:\nThe dog sleeps.", "The dog sleeps.", "preamble"),
    ("Sure!\n\nThe dog sleeps.", "The dog sleeps.", "preamble"),
    (
        "Certainly! Here is the rewritten sentence:\n\n> The dog sleeps.\n",
        "The dog sleeps.",
        "preamble markdown",
    ),
    (
        'The original sentence is: "A dog runs."\n\nOutput: "The dog sleeps."',
        "The dog sleeps.",
        "preamble label quotes",
    ),
    ("The dog sleeps.\n\nThis sentence contradicts the premise.", "The dog sleeps.", "first_line"),
    ("```\nThe dog sleeps.\n```", "The dog sleeps.", ""),
    ("```text\nThe dog sleeps.", "The dog sleeps.", ""),
    ("**The dog sleeps.**", "The dog sleeps.", "markdown"),
    ("*The dog sleeps.*", "The dog sleeps.", "markdown"),
    ("The dog **never** sleeps.", "The dog never sleeps.", "markdown"),
    ("- The dog sleeps.", "The dog sleeps.", "markdown"),
    ("1. The dog sleeps.", "The dog sleeps.", "markdown"),
    ("## The dog sleeps.", "The dog sleeps.", "markdown"),
    ("`The dog sleeps.`", "The dog sleeps.", "markdown"),
    ("<think>\nThe premise says...\n</think>\n\nThe dog sleeps.", "The dog sleeps.", "think_block"),
    ("<think></think>The dog sleeps.", "The dog sleeps.", "think_block"),
    ("<think> so </think> The dog sleeps.", "The dog sleeps.", "think_block"),
    ("The premise says a dog.\n</think>\nThe dog sleeps.", "The dog sleeps.", "think_block"),
    ("The dog sleeps. /no_think", "The dog sleeps.", "think_block"),
    ("/think", "", "think_block"),
    ("<think>The dog", "<think>The dog", ""),
    ("The dog sleeps.<|im_end|>\nuser", "The dog sleeps.", "special_token"),
    ("The dog sleeps.</s>", "The dog sleeps.", "special_token"),
    ("", "", ""),
    (" \n\t\n", "", ""),
    ('""', "", "quotes"),
]
GOOD = [
    ("Here is my dog.", "Here is my cat."),
    ("Here is my dog: Rex.", "Here is my cat: Tom."),
    ("Here is the output of the program: 5.", "Here is the output of the program: 6."),
    ("Here is the answer: yes.", "The answer is: no."),
    ("He said it was raining.", 'He said: "It is dry."'),
    ('"It rains," she said.', '"It is dry," she said.'),
    ('"It rains."', '"It is dry."'),
    ("“I am here”", "“I am not here”"),
    ('"Yes" and "no" are words.', '"Yes" and "no" are numbers.'),
    ("The board is 5 inches wide.", 'The board is 6"'),
    ("Note: the server is down.", "Note: the server is up."),
    ("Re: printer broken", "Re: printer works"),
    ("AW: Ihre Anfrage", "AW: Ihre Antwort: nein"),
    ("Ticket 4711: login fails", "Ticket 4711: login works"),
    ("True: the sky is blue.", "True: the sky is green."),
    ("True love never dies.", "True love dies."),
    ("He was convicted.", "The sentence was: five years."),
    ("The court sentenced him.", "His answer to the court: no comment."),
    ("1. FC Köln won.", "1. FC Köln lost."),
    ("Der 1. FC Köln gewann.", "1. FC Köln hat verloren."),
    ("2. Bundesliga begins.", "2. Bundesliga ends."),
    ("The 5th of May is a holiday.", "2. Mai ist Feiertag"),
    ("- 5 degrees in Oslo", "- 6 degrees in Oslo"),
    ("It is -5 degrees.", "-5 degrees is warm."),
    ("— Bonjour, dit-il.", "— Bonsoir, dit-il."),
    ("# increments i", "# decrements i"),
    ("def __init__(self): pass", "__init__ takes no argument"),
    ("x = 2 ** 3 ** 4", "x = 2 ** 3 ** 5"),
    ("Use **kwargs for names.", "Use **args and **kwargs for names."),
    ("The <think> tag begins it.", "The <think> tag</think> ends it."),
    ("It is 12:30.", "It is 12:45."),
    ("Genesis 1:1 is the beginning.", "Genesis 1:2 is the beginning."),
    ("The ratio is 3:1.", "The ratio is 1:3."),
    ("他来了。", "他说：“我没来。”"),
    ("犬が走る。", "彼は「犬が寝る」と言った。"),
    ("الكلب يجري.", "قال: الكلب نائم."),
    ("Tumatakbo ang aso.", "Sabi niya: natutulog ang aso."),
    ("'Twas the night before Christmas.", "'Twas the night after Christmas."),
    ("The dogs' bowl is empty.", "The dogs' bowl is full."),
    ("Yes, it rains.", "No, it is dry."),
    ("He sees three options.", "Options: none."),
    ("Sure, he came.", "Sure, he stayed away."),
    ("The statement was false.", "Statement: it was true."),
    ("http://example.org is up.", "http://example.org is down."),
    ("* bullet one is red", "* bullet one is blue"),
    ("a) is right", "a) is wrong"),
]


@pytest.mark.parametrize(("raw", "text", "rules"), WRAPPED)
def test_what_is_around_the_sentence_is_removed_by_stated_rules(raw, text, rules):
    cleaned = clean(raw, DOG)
    if text is not None:
        assert cleaned.text == text
        assert set(cleaned.rules) == set(rules.split())
    else:
        assert cleaned.text == raw, "words that are no talk about the task make no label"


@pytest.mark.parametrize(("premise", "hypothesis"), GOOD)
def test_a_good_sentence_stays_as_it_is(premise, hypothesis):
    assert clean(hypothesis, premise).text == hypothesis
    assert clean(hypothesis, premise).rules == ()
    assert clean(premise, premise).text == premise


@pytest.mark.parametrize("text", [text for raw, text, _ in WRAPPED if text] + [good for _, good in GOOD])
def test_a_clean_text_is_not_cleaned_further(text):
    assert clean(clean(text, DOG).text, DOG).rules == ()


@pytest.mark.parametrize(
    ("raw", "is_complete"),
    [
        ("A dog", False),
        ("A dog.\n", True),
        ("A dog.\nIt", True),
        ("Here is the sentence:\nA dog", False),
        ("", False),
    ],
)
def test_a_line_is_complete_if_more_follows(raw, is_complete):
    assert clean(raw, DOG).is_complete is is_complete


def test_every_rule_is_tested():
    assert {rule for *_, rules in WRAPPED for rule in rules.split()} == set(CleaningRule)
