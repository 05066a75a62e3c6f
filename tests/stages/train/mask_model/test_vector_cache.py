import itertools
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import spawn

from multicsr.config import MaskConfig, TrainConfig
from multicsr.stages.train import distributed
from multicsr.stages.train.data.index import Index, digest, digest_rows, join_index
from multicsr.stages.train.mask_model import vector_cache
from multicsr.stages.train.mask_model.actor import ActorEmbedder
from multicsr.stages.train.mask_model.model import InsideEmbedder, MaskModel, mask_model_fingerprint
from multicsr.stages.train.mask_model.read_mask import read_mask
from multicsr.stages.train.mask_model.vector_cache import MaskVectors
from multicsr.storage.store import Store
from tests.support.gloo import meet

COLUMNS = ["text", "entailment", "contradiction"]
WIDTH = 6


class Fake:
    """An `Embedder` with a vector for every text, which remembers what it was asked for."""

    width = WIDTH

    def __init__(self) -> None:
        self.asked: list[str] = []

    def ask(self, texts):
        self.asked += texts
        return FakeAnswer(texts)


class FakeAnswer:
    def __init__(self, texts) -> None:
        self._texts = texts

    def take(self) -> np.ndarray:
        draws = [np.random.default_rng(digest(text)) for text in self._texts]
        return np.stack([draw.standard_normal(WIDTH) for draw in draws]).astype(np.float16)


class Corpus:
    """Triplets, and batches of 16 of them; some sentences are in several rows, never in one batch."""

    def __init__(self, table) -> None:
        rows = table.to_pylist()
        for row in rows[16:]:
            row["contradiction"] = rows[int(row["row_id"][3:]) % 16]["contradiction"]
        self.rows = rows
        table = type(table).from_pylist(rows)
        self.index: Index = join_index([digest_rows(table, "masked_infonce")])
        self.num_sentences = len(self.index.sentence_T)

    def epoch(self, seed: int) -> list[np.ndarray]:
        order = random.Random(seed).sample(range(0, len(self.rows), 16), 6)
        return [np.arange(first, first + 16) for first in order]

    def ask(self, vectors: MaskVectors, batch: np.ndarray):
        own = batch[distributed.own_rows(len(batch))]
        return vectors.ask(
            self.index.text_RS[batch], [[self.rows[row][column] for row in own] for column in COLUMNS]
        )

    def take_all(self, vectors: MaskVectors, batches) -> torch.Tensor:
        """The vectors of all batches; each is asked for before the one in front of it is taken."""
        asked = [self.ask(vectors, batches[0])]
        taken = []
        for batch in [*batches[1:], None]:
            if batch is not None:
                asked.append(self.ask(vectors, batch))
            taken.append(vectors.take(asked.pop(0)))
        return torch.stack(taken)

    def expected(self, batches, embed) -> torch.Tensor:
        """As `take_all`, straight from P."""
        texts = [[self.rows[row][column] for column in COLUMNS] for batch in batches for row in batch]
        vector_BD = torch.from_numpy(embed([text for row in texts for text in row]))
        return vector_BD.view(len(batches), 16, 3, -1)


def fake_embed(texts) -> np.ndarray:
    return FakeAnswer(texts).take()


@pytest.fixture(scope="module")
def corpus(triplets) -> Corpus:
    return Corpus(triplets)


@pytest.fixture(autouse=True)
def _one_thread():
    """More would wait for each other over models this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.open(str(tmp_path / "store"))


def make(corpus, embedder, capacity: int | None = None) -> MaskVectors:
    """With a cache for `capacity` vectors, or for all."""
    number = corpus.num_sentences if capacity is None else capacity
    return MaskVectors(embedder, corpus.num_sentences, number * 2 * embedder.width / 2**30)


# One truth from wherever it comes


@pytest.fixture(scope="module")
def config(tiny_bert) -> TrainConfig:
    return TrainConfig(mask=MaskConfig(model=str(tiny_bert), sigma=0.9))


@pytest.fixture(scope="module")
def inside(config) -> InsideEmbedder:
    return InsideEmbedder(MaskModel(config.mask, "cpu"))


@pytest.fixture(scope="module")
def actor(config, ray_cluster) -> ActorEmbedder:
    return ActorEmbedder(config.mask, threads=1)


def masks(config, vectors) -> torch.Tensor:
    return torch.stack([read_mask(config, vector_GSD).keep_NC for vector_GSD in vectors])


@pytest.fixture(scope="module")
def two_epochs(corpus, config) -> tuple[list[np.ndarray], torch.Tensor, torch.Tensor]:
    """Batches, their vectors straight from P, and their masks."""
    batches = [*corpus.epoch(0), *corpus.epoch(1)]
    expected = corpus.expected(batches, MaskModel(config.mask, "cpu").embed)
    keep = masks(config, expected)
    assert 0.05 < keep.float().mean() < 0.95
    return batches, expected, keep


@pytest.mark.parametrize("capacity", [None, 10, 1, 0])
@pytest.mark.parametrize("place", ["inside", "actor"])
def test_actor_worker_and_cache_give_the_same_vectors_and_mask(
    place, capacity, corpus, config, two_epochs, request
):
    embedder = request.getfixturevalue(place)
    batches, expected, keep = two_epochs
    taken = corpus.take_all(make(corpus, embedder, capacity), batches)
    assert torch.equal(taken, expected)
    assert torch.equal(masks(config, taken), keep)


def test_the_cache_of_an_earlier_run_gives_the_same_vectors_and_mask(corpus, config, inside, store):
    batches = corpus.epoch(0)
    first = make(corpus, inside)
    expected = corpus.take_all(first, batches)
    model = mask_model_fingerprint(config.mask)
    first.write(store, model, corpus.index.sentence_T)
    embedder = Fake()
    embedder.width = inside.width
    again = make(corpus, embedder)
    again.read(store, model, corpus.index.sentence_T)
    assert torch.equal(corpus.take_all(again, batches), expected)
    assert embedder.asked == []


# Nothing is computed twice


def test_a_sentence_is_asked_for_once_and_in_the_second_epoch_none_is(corpus):
    embedder = Fake()
    vectors = make(corpus, embedder)
    for batch in corpus.epoch(0):
        vectors.take(corpus.ask(vectors, batch))
    assert len(embedder.asked) == len(set(embedder.asked)) == corpus.num_sentences
    assert corpus.num_sentences < 3 * 96
    batches = corpus.epoch(1)
    assert all(corpus.ask(vectors, batch).answer is None for batch in batches)
    assert torch.equal(corpus.take_all(vectors, batches), corpus.expected(batches, fake_embed))
    assert len(embedder.asked) == corpus.num_sentences


def test_what_does_not_fit_the_cache_is_asked_for_again(corpus):
    embedder = Fake()
    vectors = make(corpus, embedder, 40)
    for batch in corpus.epoch(0):
        vectors.take(corpus.ask(vectors, batch))
    embedder.asked.clear()
    for batch in corpus.epoch(1):
        vectors.take(corpus.ask(vectors, batch))
    assert len(set(embedder.asked)) == corpus.num_sentences - 40


@pytest.mark.parametrize("capacity", [0, 1, 2, None])
def test_a_row_without_a_negative_has_its_positives_vector_in_both_places(capacity, monkeypatch):
    """Whether or not the positive fits into the cache; and no memory is left as it was."""
    texts = [["a", "b", "b"], ["c", "d", "e"]]
    numbers = {text: number for number, text in enumerate("abcde")}
    text_GS = np.array([[numbers[text] for text in row] for row in texts], dtype=np.int32)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **kind: empty(*size, **kind).fill_(torch.nan))
    vectors = MaskVectors(Fake(), 5, (5 if capacity is None else capacity) * 2 * WIDTH / 2**30)
    expected = torch.from_numpy(fake_embed([text for row in texts for text in row])).view(2, 3, WIDTH)
    for _ in range(2):
        asked = vectors.ask(text_GS, [list(texts_of_rows) for texts_of_rows in zip(*texts, strict=True)])
        assert torch.equal(vectors.take(asked), expected)


# The store


def filled(corpus, store, model="P", capacity=None) -> MaskVectors:
    vectors = make(corpus, Fake(), capacity)
    corpus.take_all(vectors, corpus.epoch(0))
    vectors.write(store, model, corpus.index.sentence_T)
    return vectors


def read_by(corpus, store, model="P", capacity=None) -> tuple[MaskVectors, Fake]:
    embedder = Fake()
    vectors = make(corpus, embedder, capacity)
    vectors.read(store, model, corpus.index.sentence_T)
    return vectors, embedder


def test_only_what_is_new_is_written(corpus, store):
    vectors = make(corpus, Fake())
    batches = corpus.epoch(0)
    for some in (batches[:2], batches[:2], batches):
        corpus.take_all(vectors, some)
        vectors.write(store, "P", corpus.index.sentence_T)
    again, _ = read_by(corpus, store)
    again.write(store, "P", corpus.index.sentence_T)
    rows = [store.read_table(entry).num_rows for entry in store.named_entries("mask_vectors/P")]
    assert len(rows) == 2
    assert sum(rows) == corpus.num_sentences


def test_many_files_are_read_as_one(corpus, store, monkeypatch):
    monkeypatch.setattr(vector_cache, "_ROWS_PER_FILE", 50)
    filled(corpus, store)
    filled(corpus, store)  # another run that did not know of the first: every sentence is there twice
    assert len(store.names("mask_vectors")) == 2 * -(-corpus.num_sentences // 50)
    vectors, embedder = read_by(corpus, store)
    batches = corpus.epoch(1)
    assert torch.equal(corpus.take_all(vectors, batches), corpus.expected(batches, fake_embed))
    assert embedder.asked == []


def test_another_corpus_finds_the_sentences_that_it_shares(corpus, triplets, store):
    filled(corpus, store)
    other = Corpus(triplets.slice(0, 32))
    for row in other.rows[:4]:
        row["text"] = f"{row['text']} zu"
    other = Corpus(type(triplets).from_pylist(other.rows))
    vectors, embedder = read_by(other, store)
    batches = [np.arange(16), np.arange(16, 32)]
    assert torch.equal(other.take_all(vectors, batches), other.expected(batches, fake_embed))
    assert sorted(embedder.asked) == sorted(row["text"] for row in other.rows[:4])


def test_a_cache_smaller_than_the_store_takes_what_fits(corpus, store):
    filled(corpus, store)
    for capacity in (0, 40):
        vectors, embedder = read_by(corpus, store, capacity=capacity)
        batches = corpus.epoch(1)
        assert torch.equal(corpus.take_all(vectors, batches), corpus.expected(batches, fake_embed))
        assert len(set(embedder.asked)) == corpus.num_sentences - capacity


def test_another_encoder_or_prompt_reads_nothing(corpus, config, store, tiny):
    filled(corpus, store, model=mask_model_fingerprint(config.mask))
    others = [
        config.mask.model_copy(update={"model": str(tiny("roberta"))}),
        config.mask.model_copy(update={"prompt": "ba "}),
    ]
    for other in others:
        vectors, embedder = read_by(corpus, store, model=mask_model_fingerprint(other))
        corpus.take_all(vectors, corpus.epoch(0))
        assert len(set(embedder.asked)) == corpus.num_sentences
    same = config.mask.model_copy(update={"sigma": 0.8})
    vectors, embedder = read_by(corpus, store, model=mask_model_fingerprint(same))
    corpus.take_all(vectors, corpus.epoch(0))
    assert embedder.asked == []


# Several workers


def work(corpus, store: Store, capacity: int | None) -> dict[str, object]:
    """What one worker sees of some batches, of the same again, of moved ones, and of a new run's."""
    exchanged = []
    gather = distributed.gather_ragged

    def counted(own, counts):
        exchanged.append(sum(counts))
        return gather(own, counts)

    embedder = Fake()
    vectors = make(corpus, embedder, capacity)
    distributed.gather_ragged = counted
    try:
        some = corpus.epoch(0)[:3]
        parts = [corpus.take_all(vectors, batches) for batches in (some, some, moved(corpus.epoch(0)))]
        traffic = list(exchanged)
    finally:
        distributed.gather_ragged = gather
    if distributed.rank() == 0:
        vectors.write(store, "P", corpus.index.sentence_T)
    distributed.from_all(None)
    again, later = read_by(corpus, store, capacity=capacity)
    parts.append(corpus.take_all(again, corpus.epoch(1)))
    return {"vectors": torch.cat(parts), "asked": embedder.asked, "later": later.asked, "traffic": traffic}


def moved(batches):
    """Batches whose known rows all go to the first worker, or all to the last, which then asks for none."""
    known, unknown = batches[0], batches[-1]
    return [np.concatenate([known[:10], unknown[10:]]), np.concatenate([unknown[:10], known[10:]])]


def worker(rank: int, folder: str, corpus: Corpus) -> None:
    for workers, capacity in itertools.product((3, 2), (None, 40)):
        if rank >= workers:
            continue
        name = f"{workers}-{capacity}"
        meet(Path(folder, name), rank, workers)
        result = work(corpus, Store.open(f"{folder}/store-{name}"), capacity)
        torch.save(result, f"{folder}/{name}-{rank}.pt")
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, corpus) -> Path:
    """Results of 3 and of 2 real processes."""
    folder = tmp_path_factory.mktemp("workers")
    spawn(worker, (str(folder), corpus), nprocs=3, daemon=True)
    return folder


@pytest.mark.cluster
@pytest.mark.parametrize("capacity", [None, 40])
@pytest.mark.parametrize("workers", [2, 3])
def test_every_worker_ends_with_the_vectors_of_one(workers, capacity, corpus, folder):
    some, moved_ones = corpus.epoch(0)[:3], moved(corpus.epoch(0))
    expected = corpus.expected([*some, *some, *moved_ones, *corpus.epoch(1)], fake_embed)
    for rank in range(workers):
        result = torch.load(folder / f"{workers}-{capacity}-{rank}.pt")
        assert torch.equal(result["vectors"], expected)


@pytest.mark.cluster
@pytest.mark.parametrize("workers", [2, 3])
def test_each_sentence_is_asked_for_by_one_worker_and_exchanged_once(workers, corpus, folder, tmp_path):
    """Known ones are not sent, and a batch of known sentences sends nothing."""
    alone = work(corpus, Store.open(str(tmp_path)), None)
    results = [torch.load(folder / f"{workers}-None-{rank}.pt") for rank in range(workers)]
    assert sorted(text for result in results for text in result["asked"]) == sorted(alone["asked"])
    assert all(result["asked"] for result in results)
    assert sorted(text for result in results for text in result["later"]) == sorted(alone["later"])
    assert len(alone["later"]) < corpus.num_sentences / 2
    for result in results:
        assert result["traffic"] == alone["traffic"]
        assert sum(result["traffic"]) == len(alone["asked"])
        assert len(result["traffic"]) == 3 + 2


@pytest.mark.parametrize("damage", ["bit", "cut", "empty"])
def test_a_damaged_file_of_vectors_is_deleted_and_computed_again(corpus, store, caplog, damage):
    filled(corpus, store)
    (name,) = store.names("mask_vectors/P")
    path = store.directory / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"bit": content, "cut": content[:-100], "empty": b""}[damage])
    vectors, embedder = read_by(corpus, store)
    assert store.names("mask_vectors/P") == []
    batches = corpus.epoch(0)
    assert torch.equal(corpus.take_all(vectors, batches), corpus.expected(batches, fake_embed))
    assert embedder.asked
    assert re.search(rf"{name} is damaged; its vectors are computed again", caplog.text)
    vectors.write(store, "P", corpus.index.sentence_T)
    (again,) = store.names("mask_vectors/P")
    assert again.rpartition("-")[2] == name.rpartition("-")[2], "its checksum"
