import csv
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest

from multicsr.errors import ConfigError
from multicsr.stages.evaluate.tasks import find_tasks
from multicsr.tools.label.page import page, write_page
from tests.support.browser import Browser, browser

HOSTILE = [
    ("</script><script>document.title = 'broken'</script>", "<!-- <b>bold</b> & &amp; \u2028 'quotes\" \\n"),
    ("שלום עולם, מה שלומך היום?", "مرحبا بالعالم"),
    ("Two\ttabs\nand a line", "日本語の文です。"),
]
PAIRS = [*HOSTILE, *((f"A dog runs, {number}.", f"An animal moves, {number}.") for number in range(97))]
CLEAN = [(" ".join(one.split()), " ".join(other.split())) for one, other in PAIRS]


@pytest.fixture(scope="module")
def tab(tmp_path_factory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


@pytest.fixture
def opened(tab, tmp_path) -> Browser:
    """The page of `PAIRS`, without judgements of an earlier test."""
    write_page(PAIRS, "similarity", "mine", tmp_path / "label.html")
    tab.resize(1280)
    tab.open((tmp_path / "label.html").as_uri())
    tab.value("localStorage.clear()")
    tab.reload()
    return tab


def shown(tab: Browser) -> tuple[str, str]:
    return tuple(tab.value("[element('first').textContent, element('second').textContent]"))


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [str(value) for name, value in attributes if name in ("src", "href", "action")]


def test_no_text_of_a_pair_becomes_an_element_and_nothing_is_loaded():
    one, other = (Elements(page(pairs, "similarity", "a <b> & c")) for pairs in (PAIRS, [("a", "b")]))
    assert one.tags == other.tags
    assert one.outside == []
    assert "http" not in page([("a", "b")], "same", "x").replace("http-equiv", "")


def test_another_file_at_the_place_of_the_page_stays_as_it_was(tmp_path):
    out = tmp_path / "pairs.tsv"
    out.write_text("a\tb\n")
    with pytest.raises(ConfigError, match=r"--out: .*pairs.tsv is another file already; remove it or name"):
        write_page(PAIRS, "similarity", "x", out)
    assert out.read_text() == "a\tb\n"


def test_the_same_page_may_be_written_again_and_one_of_other_pairs_may_not(tmp_path):
    out = tmp_path / "label.html"
    for _ in range(2):
        write_page(PAIRS, "similarity", "x", out)
    written = out.read_bytes()
    with pytest.raises(ConfigError, match="another file already"):
        write_page(PAIRS[1:], "similarity", "x", out)
    assert out.read_bytes() == written


def test_a_page_without_pairs_or_at_a_wrong_place_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no pairs"):
        write_page([], "similarity", "x", tmp_path / "x.html")
    with pytest.raises(ConfigError, match=r"--out: .*none"):
        write_page(PAIRS, "similarity", "x", tmp_path / "none" / "x.html")
    assert list(tmp_path.iterdir()) == []


def test_100_pairs_are_judged_by_one_key_each_and_the_file_is_a_task(opened, tmp_path):
    keys = [str(number * 7 % 6) for number in range(100)]
    for key, pair in zip(keys, CLEAN, strict=True):
        assert shown(opened) == pair
        opened.press(key)
    assert opened.value("element('progress').value") == 100
    assert "100 judged. All pairs are judged" in opened.value("element('status').textContent")
    assert opened.value("document.title") == "mine: pairs to judge"
    path = tmp_path / "mine.tsv"
    path.write_text(opened.value("file()"), encoding="utf-8")
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    assert header == ["score", "sentence1", "sentence2"]
    assert [tuple(row) for row in rows] == [(key, *pair) for key, pair in zip(keys, CLEAN, strict=True)]
    (task,) = find_tasks([path]).tasks
    assert (task.kind, task.scores) == ("sts", [float(key) for key in keys])


def test_a_judgement_is_taken_back_and_given_anew(opened):
    opened.press("5", "4", "Backspace")
    assert shown(opened) == CLEAN[1]
    assert opened.value("judged") == {"0": "5"}
    opened.press("1", "ArrowLeft", "ArrowLeft")
    assert shown(opened) == CLEAN[0]
    assert opened.value("element('scores').querySelector('[aria-pressed=true]').value") == "5"
    opened.press("0")
    assert opened.value("judged") == {"0": "0", "1": "1"}
    assert shown(opened) == CLEAN[2]
    opened.press("Backspace", "Backspace", "Backspace")
    assert opened.value("judged") == {}


def test_other_keys_and_keys_with_control_judge_nothing(opened):
    opened.press("6", "x", " ")
    opened.call("Input.dispatchKeyEvent", type="keyDown", key="5", text="5", modifiers=2)
    assert opened.value("judged") == {}


def test_a_page_that_is_opened_again_goes_on(opened, tmp_path):
    opened.press("3", "2", "ArrowRight", "1")
    opened.reload()
    assert opened.value("judged") == {"0": "3", "1": "2", "3": "1"}
    assert shown(opened) == CLEAN[4]
    opened.press("Backspace")
    assert shown(opened) == CLEAN[3]
    write_page(PAIRS[:50], "similarity", "other", tmp_path / "other.html")
    opened.open((tmp_path / "other.html").as_uri())
    assert opened.value("judged") == {}


def test_buttons_are_reached_and_pressed_by_keyboard(opened):
    opened.press("Tab", "Enter")
    assert opened.value("judged") == {"0": "5"}
    names = opened.value("[...document.querySelectorAll('button')].map(each => each.textContent)")
    assert all(names)


def test_the_download_has_the_name_and_the_bytes_of_the_file(opened):
    opened.press("4")
    opened.value(
        "HTMLAnchorElement.prototype.click = function () { window.saved = [this.download, this.href] }"
    )
    opened.value("element('save').click()")
    name, url = opened.value("saved")
    assert name == "mine.tsv"
    read = (
        "new Promise(done => { const reader = new FileReader(); reader.onload = () => done(reader.result); "
        "URL.createObjectURL = blob => { reader.readAsText(blob); return 'blob:' }; save() })"
    )
    assert (
        opened.value(read)
        == opened.value("file()")
        == f"score\tsentence1\tsentence2\n4\t{CLEAN[0][0]}\t{CLEAN[0][1]}\n"
    )
    assert url.startswith("blob:")


def test_a_scale_of_two_makes_a_task_of_pair_classification(tab, tmp_path):
    write_page(PAIRS[3:7], "same", "two", tmp_path / "two.html")
    tab.open((tmp_path / "two.html").as_uri())
    tab.press("s", "d", "D", "S")
    path = tmp_path / "two.tsv"
    path.write_text(tab.value("file()"), encoding="utf-8")
    (task,) = find_tasks([path]).tasks
    assert (task.kind, task.labels) == ("pair classification", [1, 0, 0, 1])


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_its_window_and_its_colours_are_readable(opened, width, dark):
    opened.resize(width, dark=dark)
    opened.press("ArrowRight")
    assert opened.value("document.documentElement.scrollWidth") == width
    for selector in ("body", ".soft", ".sentence", "#scores button", "#save"):
        assert opened.value(CONTRAST % selector) >= 4.5, selector
    heights = opened.value("[...document.querySelectorAll('button')].map(each => each.offsetHeight)")
    assert min(heights) >= 44
    assert opened.value("getComputedStyle(element('first')).direction") == "rtl"


CONTRAST = """(() => {
  const of = colour => {
    const [r, g, b] = colour.match(/[0-9.]+/g).map(each => each / 255)
      .map(each => each <= .03928 ? each / 12.92 : ((each + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = node => {
    const colour = getComputedStyle(node).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? ground(node.parentElement) : colour;
  };
  const node = document.querySelector("%s");
  const [a, b] = [of(getComputedStyle(node).color), of(ground(node))].sort((x, y) => y - x);
  return (a + .05) / (b + .05);
})()"""
