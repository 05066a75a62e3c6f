import logging

from multicsr.observability.progress import SilentProgress
from multicsr.stages.ingest.leaks import Leaks, find_leaks, report_leaks
from multicsr.stages.ingest.overlap import KnownTexts

SETS = {
    "sts": [
        "A brown dog is running through the deep snow.",
        "Two men are cooking dinner in a small kitchen.",
    ],
    "dev": ["A brown dog is running through the deep snow"],
}
PREMISES = [
    "a brown dog is running through the deep snow",
    "Nothing of the sort.",
    "It rains all day long in spring.",
]
HYPOTHESES = ["It is cold.", "Two men are cooking lunch in a small kitchen.", "It is wet."]


def test_a_row_leaks_if_one_of_its_texts_does_and_is_counted_once_for_each_set():
    leaks, details = find_leaks(KnownTexts(SETS), PREMISES, HYPOTHESES)
    assert (leaks.num_rows, leaks.num_leaked) == (3, 2)
    assert (dict(leaks.exactly), dict(leaks.nearly)) == ({"sts": 1, "dev": 1}, {"sts": 1})
    assert [detail is not None for detail in details] == [True, True, False]
    assert "is one word from 'Two men are cooking dinner in a small kitchen.' of sts" in str(details[1])
    assert leaks.counters() == {
        "leaked": 2.0,
        "leaked_exactly_sts": 1.0,
        "leaked_exactly_dev": 1.0,
        "leaked_nearly_sts": 1.0,
    }


def test_leaks_of_parts_add_up_to_those_of_the_whole():
    known = KnownTexts(SETS)
    whole, _ = find_leaks(known, PREMISES * 3)
    assert sum((find_leaks(known, PREMISES)[0] for _ in range(3)), Leaks()) == whole
    assert Leaks(5).counters() == {}


def test_a_line_names_the_sets_and_says_what_happens_to_the_rows(caplog):
    class Lines(SilentProgress):
        def __init__(self) -> None:
            self.announced: list[str] = []

        def announce(self, text: str) -> None:
            self.announced.append(text)

    leaks, _ = find_leaks(KnownTexts(SETS), PREMISES, HYPOTHESES)
    lines = Lines()
    with caplog.at_level(logging.WARNING):
        report_leaks("generate", "3 premises", leaks.counters(), False, lines, leaks.samples)
    (warning,) = caplog.messages
    assert (
        "generate: 2 of 3 premises are in labelled data: sts 2 (1 with one word changed), dev 1; " in warning
    )
    assert "--drop-leaks leaves them out" in warning
    report_leaks("generate", "3 premises", leaks.counters(), True, lines, leaks.samples)
    assert lines.announced[0].endswith("; they are rejected as leaked")
    report_leaks("generate", "3 premises", {}, True, lines)
    assert (len(lines.announced), len(caplog.messages)) == (1, 1)
