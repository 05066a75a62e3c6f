"""Languages of sentences: a column that the detector fills, and ids that do not depend on it."""

import pytest
from pydantic import ValidationError

from multicsr.config import IngestConfig
from multicsr.errors import ConfigError
from multicsr.observability.progress import SilentProgress
from multicsr.rows import UNDETERMINED, row_id
from multicsr.stages.ingest import language_detection, sharding
from multicsr.stages.ingest.findings import amounts_of, counters_of, findings
from multicsr.stages.ingest.language_detection import language_identifier
from multicsr.stages.ingest.run import ingest
from multicsr.storage.manifest import iter_tables
from multicsr.storage.store import Store
from multicsr.tools.audit import audit
from tests.support.inline import work_inline
from tests.support.versions import publish

TEXTS = {
    "en": "The children are playing football in the park this afternoon.",
    "de": "Die Kinder spielen heute Nachmittag im Park Fußball.",
    "tl": "Naglalaro ng bola ang mga bata sa parke ngayong hapon.",
    "ja": "子どもたちは今日の午後、公園でサッカーをしています。",
    "ar": "يلعب الأطفال كرة القدم في الحديقة بعد ظهر اليوم.",
    UNDETERMINED: "12 345 67 890",
}


@pytest.mark.parametrize("languages", [[], ["en", "de", "fil", "ja", "ar"]])
def test_languages_of_sentences(languages):
    assert language_identifier(languages)(list(TEXTS.values())) == list(TEXTS)


def test_doubtful_text_is_undetermined():
    assert language_identifier(["nb", "da"])(["Vi er her."]) == [UNDETERMINED]


def test_only_the_given_languages_are_chosen():
    assert set(language_identifier(["en", "fr"])(list(TEXTS.values()))) <= {"en", "fr", UNDETERMINED}


def test_unknown_language_is_an_error():
    with pytest.raises(ConfigError, match=r"ingest\.languages: xx is not supported; use one of af, ar"):
        language_identifier(["en", "xx"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"language": "auto", "languages": ["en"]}, "one language leaves nothing to detect"),
        ({"languages": ["en", "de"]}, "languages has no effect without language: auto"),
        ({"language": "auto", "language_filter": True}, "language_filter has no effect with language: auto"),
    ],
)
def test_setting_without_effect_is_an_error(settings, message):
    with pytest.raises(ValidationError, match=message):
        IngestConfig.model_validate(settings)


@pytest.fixture
def corpus(tmp_path, write, config, monkeypatch):
    """Ingests the sentences, and returns configuration, store, manifest and rows."""
    work_inline(monkeypatch)
    path = write(tmp_path / "a.jsonl", [*TEXTS.values(), TEXTS["en"]])

    def run(**settings):
        given = config(path, **settings)
        store = Store.open(given.store)
        made = ingest(given, store, SilentProgress())
        return store, made, [row for table in iter_tables(store, made) for row in table.to_pylist()]

    return run


def test_detected_language_is_a_column_and_no_part_of_the_id(corpus, monkeypatch):
    store, made, rows = corpus(language="auto")
    assert {row["text"]: row["language"] for row in rows} == {text: tag for tag, text in TEXTS.items()}
    assert all(row["row_id"] == row_id(row["text"], UNDETERMINED) for row in rows)
    assert amounts_of("language_", made.counters) == dict.fromkeys(sorted(TEXTS), 1)
    assert audit(publish(store, "sentences", made)) == []

    monkeypatch.setattr(sharding, "language_identifier", lambda languages: lambda texts: ["xx"] * len(texts))
    _, again, others = corpus(language="auto", languages=["en", "de"])
    assert {row["language"] for row in others} == {"xx"}
    assert again.fingerprint != made.fingerprint
    assert again.rows_digest == made.rows_digest, "what was written for the rows is found again"


def test_configured_language_is_part_of_the_id_as_before(corpus):
    _, made, rows = corpus(language="tl")
    assert all(row["row_id"] == row_id(row["text"], "tl") and row["language"] == "tl" for row in rows)
    assert not amounts_of("language_", made.counters)


def test_panic_of_the_detector_leaves_the_language_open(monkeypatch):
    class Detector:
        def detect_language_of(self, text):
            raise type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})("boom")

    monkeypatch.setattr(language_detection, "_judge", lambda languages: Detector())
    assert language_identifier(["en", "de"])(["A sentence."]) == [UNDETERMINED]


def test_findings_are_one_line_each():
    counters = {
        "bytes": 12.0,
        **counters_of("language_", {"de": 1, "en": 1200}),
        **counters_of("redacted_", {"ip": 3}),
    }
    assert list(findings(counters)) == ["languages: en 1,200, de 1", "replaced: ip 3"]
    many = counters_of("language_", {f"x{i}": i for i in range(20)})
    assert list(findings(many)) == [
        "languages: x19 19, x18 18, x17 17, x16 16, x15 15, x14 14, x13 13, x12 12, ..."
    ]
    assert list(findings({"bytes": 1.0})) == []
