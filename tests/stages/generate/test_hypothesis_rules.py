"""Rows that are rejected for what the LLM wrote, each with its reason, and good rows that look alike."""

import pytest

from multicsr.prompts import PromptSet, load_prompts
from multicsr.rows import WRITING_REASONS, Reason
from multicsr.stages.generate.cleaning import clean
from multicsr.stages.generate.demonstrations import demonstrations
from multicsr.stages.generate.hypothesis_rules import JUDGED, HypothesisRules

DOG = "A dog runs in the park."
RULES = HypothesisRules(load_prompts("reference"))


def reason(premise, entailment, contradiction="It is something else altogether.", language="en", rules=RULES):
    texts = {"entailment": entailment, "contradiction": contradiction}
    named = {name: (text, clean(text, premise)) for name, text in texts.items()}
    rejection = rules.rejection(premise, language, named)
    return rejection.reason if rejection else None


BAD = [
    (Reason.EMPTY_HYPOTHESIS, ["", " \n ", '""', "\u200b", "/think", "```\n```", "***", "1.", "£120"]),
    (Reason.THINK_BLOCK, ["<think>", "<think>The user wants", "<think>so</think>", "<THINKING>Well, a dog"]),
    (
        Reason.CONTROL_CHARACTERS,
        ["A dog\x00 runs.", "A dog \ufffd runs.", "\x1b[1mA dog moves.", "A dog\u0081 moves.", "\ufffd"],
    ),
    (
        Reason.DECLINED,
        [
            "I'm sorry, but I can't assist with that.",
            "I’m sorry, but I can’t help with this request.",
            "I am unable to fulfill this request.",
            "I cannot create a contradiction without more context.",
            "Sorry, I can't rewrite this text.",
            "As an AI language model, I don't have opinions on dogs.",
            "I am a language model and do not run.",
            "I apologize, but I cannot generate a paraphrase of it.",
            "Als KI kann ich das nicht beurteilen.",
            "En tant qu'IA, je ne peux pas répondre.",
            "Como modelo de lenguaje, no puedo opinar.",
            "作为一个AI语言模型，我不能回答。",
        ],
    ),
    (
        Reason.META_TALK,
        [
            "Here is the output sentence:",
            "Opposing:",
            "False.",
            "Contradiction",
            "The sentence or phrase is true if it is a fact.",
            'The original sentence was "A dog runs in the park."',
            "This sentence contradicts the fact that dogs run.",
            "The sentence is a simple sentence.",
            "The new sentence is a more realistic, less negative, and more positive sentence.",
            "The sentence is a simple one.",
            "The first sentence of the sentence is true.",
            "The sentence can be rewritten as follows",
            "Here is a sentence that means the opposite",
            "Please provide the sentence you would like me to paraphrase.",
            "I would rephrase the input to be clearer.",
            "Rewrite the sentence with other words.",
            "The dog walks, which has the opposite meaning.",
            "The dog runs is a paraphrase of the given sentence.",
            "A dog is a metaphor.",
            "[Insert sentence here]",
            "The new sentence challenges the idea that a dog runs.",
            "The dog sits, contrasting the idea of running.",
            "The dog changes, contrasting and altering what it is.",
            "The new sentence should be realistic.",
            "The dog runs, a stark contrast to the original idea.",
            "The dog sits, which is grounded in common sense.",
            "That is detailed in the sentence and phrase provided.",
            "A dog runs, which is a true statement.",
            "The sentence is incorrect because dogs sit.",
        ],
    ),
    (
        Reason.LIST,
        [
            "1. A dog walks.\n2. A dog sits.",
            "- A dog walks.\n- A dog sits.\n- A dog lies.",
            "a) A dog walks. b) A dog sits.",
            "Here are some options:\n* A dog walks.\n* A dog sits.",
        ],
    ),
    (
        Reason.COPIED_HYPOTHESIS,
        [
            DOG,
            DOG.upper(),
            "The dog runs in a park.",
            f"French: {DOG}",
            f"The sentence is a {DOG[2:]}",
            "A dog runs in the park",
            '"A dog runs in the park."',
            'The original sentence is: "A dog runs in the park."',
            "a dog runs, in the park!",
            "**A dog runs in the park.**",
        ],
    ),
    (
        Reason.DEMONSTRATION_COPIED,
        [
            "A member of my team will execute your orders with immense precision.",
            "'this information belongs to them'",
            "How do you know?",
            "They have no information at all",
            "Help me write a sentence that is entailment with a given sentence.",
        ],
    ),
    (
        Reason.WRONG_LANGUAGE,
        ["公园里有一只狗在奔跑，它很快乐。", "Собака бежит по парку.", "كلب يركض في الحديقة"],
    ),
]
GOOD = [
    (DOG, "A dog moves outside.", "A dog sleeps in the park."),
    (DOG, "Here is a dog.", "Here is a cat."),
    (DOG, "An animal is in the park", "No, the dog sleeps."),
    ("I'm sorry, but I can't help you.", "I'm sorry, but I cannot help you with that.", "I can help you."),
    ("She asked me to write the text.", "I was asked for a text.", "I'm sorry, but I can't write the text."),
    ("I will come tonight.", "I come this evening.", "I'm sorry, but I can't come tonight."),
    ("Please help me with my luggage.", "I need help with my luggage.", "I can't help you."),
    ("As an AI, I have no body.", "I am an AI without a body.", "As an AI, I have a body."),
    ("The chatbot answers questions.", "It is an AI language model.", "I am an AI and answer none."),
    ("The sentence was commuted.", "The given sentence was made milder.", "The original sentence was kept."),
    ("Both words mean the same.", "They have the same meaning.", "They have the opposite meaning."),
    ("The job requires long hours.", "The job entails long hours.", "The job entails short hours."),
    ("The CEO spoke.", "The CEO made a statement.", "The statement was withdrawn."),
    ("He took back what he had claimed.", "He withdrew his original statement.", "He kept his idea."),
    ("1. FC Köln won.", "1. FC Köln did not lose.", "1. FC Köln lost."),
    ("Buy 1. milk 2. eggs", "1. milk and 2. eggs are needed", "1. milk 2. no eggs"),
    ("Note: it rains.", "Note: water falls.", "Note: it is dry."),
    ("Re: Ticket 12 is open", "Re: Ticket 12 waits", "Re: Ticket 12 is closed"),
    ('He said: "It rains."', 'He said: "Water falls."', 'He said: "It is dry."'),
    ("x < 5", "x is less than 5", "x > 5"),
    ("if ready: run()", "run() is called if ready", "if !ready: run()"),
    ("It is 5 °C.", "It is five degrees.", "It is -5 °C."),
    ("Pi is 3.14.", "Pi is about 3.", "Pi is 314."),
    ("C++ is fast.", "C++ is quick.", "C is fast."),
    ("😀", "🙂", "😢"),
    ("???", "??", "!!!"),
    ("他来了。", "他到了。", "他没来。"),
    ("犬が公園を走っている。", "公園に犬がいる。", "犬は公園で寝ている。"),
    ("الكلب يجري في الحديقة", "هناك كلب في الحديقة", "الكلب نائم في الحديقة"),
    ("Tumatakbo ang aso sa parke.", "May aso sa parke.", "Natutulog ang aso sa parke."),
    ("ឆ្កែរត់នៅក្នុងសួន។", "មានឆ្កែនៅក្នុងសួន។", "ឆ្កែដេកនៅក្នុងសួន។"),
    ("The novel 戦争と平和 is long.", "戦争と平和 is a long novel.", "戦争と平和 is a short novel."),
    ("True or not?", "Is it true?", "It is false."),
    ("It is true.", "True.", "It is a lie."),
]


@pytest.mark.parametrize(("expected", "text"), [(why, text) for why, texts in BAD for text in texts])
def test_bad_texts_are_rejected_with_their_reason(expected, text):
    assert reason(DOG, text) is expected
    assert reason(DOG, "An animal is there.", text) is expected


@pytest.mark.parametrize(("premise", "entailment", "contradiction"), GOOD)
def test_good_rows_pass(premise, entailment, contradiction):
    assert reason(premise, entailment, contradiction) is None


def test_the_detail_names_the_hypothesis_and_the_evidence():
    texts = {"entailment": "An animal.", "contradiction": "The original sentence was false."}
    named = {name: (text, clean(text, DOG)) for name, text in texts.items()}
    assert RULES.rejection(DOG, "en", named).detail == "contradiction: The original sentence"


def test_of_several_reasons_the_first_in_order_is_given():
    assert reason(DOG, DOG, "<think>") is Reason.THINK_BLOCK
    assert reason(DOG, "False.", "") is Reason.EMPTY_HYPOTHESIS
    assert reason(DOG, DOG, "False.") is Reason.META_TALK


def test_equal_hypotheses_are_rejected_up_to_case_and_punctuation():
    assert reason(DOG, "It moves.", '"it moves"') is Reason.SAME_HYPOTHESES
    assert reason(DOG, "It moves.", "It moves not.") is None


def test_every_judged_reason_is_tested_and_decided_by_the_texts():
    assert {why for why, _ in BAD} | {Reason.SAME_HYPOTHESES} == set(JUDGED)
    assert set(JUDGED) < WRITING_REASONS


def test_a_premise_that_is_a_demonstration_may_have_the_other_one():
    assert (
        reason("How do you know? All this is their information again.", "This information belongs to them.")
        is None
    )


def test_demonstrations_of_few_shots_are_found_in_every_form():
    prompts = PromptSet(
        name="t",
        layout="Sentence: It rains hard today.\nEntailment: Much water falls.\n\n{premise}\n{instruction}",
        entailment=['Example: "Two dogs play." becomes “Animals have fun.”\nEntailment:'],
        contradiction=["Contradiction:"],
        score="{premise} {hypothesis}",
        score_labels=list("012345"),
    )
    found = demonstrations(prompts)
    assert {"it rains hard today", "much water falls", "two dogs play", "animals have fun"} <= found
    assert not any("{" in form or "premise" in form for form in found)
    rules = HypothesisRules(prompts)
    assert reason(DOG, "Much water falls!", rules=rules) is Reason.DEMONSTRATION_COPIED
    assert reason(DOG, "Much water falls today.", rules=rules) is None


@pytest.mark.parametrize("name", ["syncse", "reference"])
def test_the_words_of_the_shipped_prompts_are_known(name):
    prompts = load_prompts(name)
    rules = HypothesisRules(prompts)
    line = prompts.entailment[0].splitlines()[0]
    assert reason(DOG, line, rules=rules) in (Reason.DEMONSTRATION_COPIED, Reason.META_TALK)


@pytest.mark.parametrize(
    ("premise", "text", "language", "is_other"),
    [
        ("Tumatakbo ang aso sa malaking parke.", "The dog is running in the big park.", "tl", True),
        ("Tumatakbo ang aso sa malaking parke.", "The dog is running in the big park.", "en", False),
        ("Tumatakbo ang aso sa malaking parke.", "The dog ran.", "tl", False),
        ("Tumatakbo ang aso.", "The dog is running in the big park.", "tl", False),
        ("Ang meeting is on Monday and the boss is there.", "The meeting is on the first day.", "tl", False),
        ("De hond was in het park en is weg.", "De hond is in het park van de stad.", "nl", False),
        ("Der Hund rennt in den großen Park.", "The dog does not run in the park.", "de", True),
        ("Der Hund rennt in den großen Park.", "Der Hund war in der Stadt.", "de-AT", False),
        ("A kutya is a parkban fut ma.", "A macska is a kertben van.", "hu", False),
        ("这只狗在公园里快乐地奔跑着。", "犬が公園を楽しそうに走っています。", "zh", True),
        ("犬が公園を楽しそうに走っています。", "这只黑白相间的小狗在公园里快乐地奔跑着。", "ja", True),
        ("犬が公園を楽しそうに走っています。", "東京都知事選挙投票率低下", "ja", False),
        ("東京都知事選挙投票率低下", "東京の投票率が上がった。", "ja", False),
        ("这只狗在公园里快乐地奔跑着。", "The dog runs happily in the park.", "zh", True),
        ("这只狗在公园里。", "The dog is in the park.", "zh", False),
        ("Пёс бежит по большому парку.", "Pyos bezhit po bolshomu parku.", "ru", True),
        ("ｔｈｅ ｄｏｇ ｒｕｎｓ ａｗａｙ", "the dog stays here", "en", False),
    ],
)
def test_another_language_is_found_where_the_texts_are_long_enough(premise, text, language, is_other):
    expected = Reason.WRONG_LANGUAGE if is_other else None
    assert reason(premise, text, "K2 12345", language) is expected
