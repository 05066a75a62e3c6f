import math
from collections import Counter

import numpy as np
import pytest
from sklearn.cluster import MiniBatchKMeans

from multicsr.errors import ConfigError
from multicsr.stages.evaluate.kinds import clustering
from multicsr.stages.evaluate.kinds.clustering import ClusteringTask
from tests.support.kind_files import find, write_json_lines, write_tsv
from tests.support.trigram_encoder import trigrams

TOPICS = {
    "sea": "wave ship sail tide coral",
    "sky": "cloud wing storm star moon",
    "soil": "root worm clay seed moss",
}


def entropy(names) -> float:
    counts = Counter(names)
    return -sum(n / len(names) * math.log(n / len(names)) for n in counts.values())


def plain_v_measure(clusters, groups) -> float:
    """Harmonic mean of homogeneity 1 - H(group | cluster) / H(group) and completeness, from entropies."""
    both = entropy([*zip(clusters, groups, strict=True)])
    homogeneity = 1 - (both - entropy(clusters)) / entropy(groups)
    completeness = 1 - (both - entropy(groups)) / entropy(clusters)
    return 2 * homogeneity * completeness / (homogeneity + completeness)


def sentences_of(seed: int, count: int) -> tuple[list[str], list[str]]:
    draw = np.random.default_rng(seed)
    groups = [str(group) for group in draw.choice([*TOPICS], size=count)]
    texts = [
        " ".join(draw.choice([*TOPICS[group].split(), "the", "near", "big"], size=4)) for group in groups
    ]
    return texts, groups


def test_v_measure_is_that_of_mini_batch_k_means_with_a_cluster_per_group():
    texts, groups = sentences_of(0, 120)
    [measurement] = ClusteringTask("topics", [texts], [groups]).measure(trigrams)
    kmeans = MiniBatchKMeans(n_clusters=3, batch_size=500, n_init="auto", random_state=42)
    clusters = kmeans.fit(trigrams(texts)).labels_
    assert measurement.score.value == pytest.approx(100 * plain_v_measure(list(clusters), groups))
    assert 5 < measurement.score.value < 100
    assert plain_v_measure(*measurement.examples.value_NK.T.tolist()) * 100 == pytest.approx(
        measurement.score.value
    )


def test_score_of_several_sets_is_the_mean_of_each_alone():
    sets = [sentences_of(seed, 60) for seed in (1, 2)]
    alone = [
        ClusteringTask("t", [texts], [groups]).measure(trigrams)[0].score.value for texts, groups in sets
    ]
    [together] = ClusteringTask("t", *map(list, zip(*sets, strict=True))).measure(trigrams)
    assert together.score.value == pytest.approx(np.mean(alone))
    assert together.score.subsets == {"set 1": pytest.approx(alone[0]), "set 2": pytest.approx(alone[1])}


def test_groups_that_the_vectors_show_plainly_are_found_whole():
    [measurement] = ClusteringTask("t", [["aaaa"] * 5 + ["bbbb"] * 5], [["a"] * 5 + ["b"] * 5]).measure(
        trigrams
    )
    assert measurement.score.value == pytest.approx(100)


def test_clustering_is_read_from_columns_and_from_lists(tmp_path):
    table = write_tsv(tmp_path / "a.tsv", ["cluster", "sentence"], [["x", "s1"], ["y", "s2"]])
    lists = write_json_lines(tmp_path / "b.jsonl", [{"sentences": ["s1", "s2"], "labels": ["x", 3]}])
    first, second = find(clustering.KIND, table, lists)
    assert (first.task.sentences, first.task.groups) == ([["s1", "s2"]], [["x", "y"]])
    assert (second.task.sentences, second.task.groups) == ([["s1", "s2"]], [["x", "3"]])


@pytest.mark.parametrize(("labels", "is_task"), [("ab", False), ("abc", True)])
def test_label_column_names_groups_from_three_labels_on(tmp_path, labels, is_task):
    path = write_tsv(tmp_path / "a.tsv", ["label", "text"], [[label, f"text {label}"] for label in labels])
    assert bool(find(clustering.KIND, path)) == is_task


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"sentences": ["s1", "s2"], "labels": ["x"]}, "2 sentences, 1 labels"),
        ({"sentences": ["s1", "s2"], "labels": ["x", "x"]}, "two groups or more"),
    ],
)
def test_set_that_cannot_be_clustered_is_an_error(tmp_path, record, message):
    with pytest.raises(ConfigError, match=message):
        find(clustering.KIND, write_json_lines(tmp_path / "b.jsonl", [record]))
