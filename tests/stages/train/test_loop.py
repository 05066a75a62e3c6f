import math
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from multicsr.artifacts import DevScore, Step, read_log
from multicsr.config import MaskConfig, TrainConfig, TripletFile
from multicsr.errors import ConfigError, RunError
from multicsr.stages.evaluate import encoding, read_task
from multicsr.stages.train import encoder
from multicsr.stages.train.data.index import digest_rows, join_index
from multicsr.stages.train.data.plan import make_plan
from multicsr.stages.train.engines.torch import TorchEngine
from multicsr.stages.train.fit import fit
from multicsr.stages.train.monitoring import reporters


@pytest.fixture
def config(tiny_bert, dev_file) -> TrainConfig:
    """Nine steps of a few milliseconds, dropout on."""
    return TrainConfig(
        encoder=str(tiny_bert),
        pooling="cls",
        mlp_head=True,
        mask=MaskConfig(model=str(tiny_bert), sigma=0.9),
        learning_rate=3e-3,
        global_batch=16,
        dev=str(dev_file),
        evaluate_every=2,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def assert_same_bits(one: Path, other: Path) -> None:
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def steps_of(folder: Path) -> list[Step]:
    return [line for line in read_log(folder / "train.jsonl") if isinstance(line, Step)]


def test_a_run_learns_and_keeps_its_best_checkpoint(config, triplets, dev_file, tmp_path):
    result = fit(config.model_copy(update={"epochs": 12}), triplets, seed=3, out=tmp_path)
    lines = read_log(tmp_path / "train.jsonl")
    steps = [line for line in lines if isinstance(line, Step)]
    devs = [line for line in lines if isinstance(line, DevScore)]
    assert [line.step for line in steps] == list(range(1, result.steps + 1))
    assert steps[-1].epoch == 12
    assert sum(line.loss for line in steps[-6:]) < 0.9 * sum(line.loss for line in steps[:6])
    assert 0 < steps[0].masked < 1
    assert steps[0].learning_rate == 3e-3
    assert [line.step for line in devs][:3] == [0, 2, 4]
    best = max((line for line in devs if line.step), key=lambda line: line.dev)
    assert (result.best_step, result.best_dev) == (best.step, best.dev)
    assert [line for line in devs if line.best][-1] == best
    model = SentenceTransformer(str(result.model_dir), device="cpu")
    assert read_task(dev_file).measure(encoding(model))[0].score.value == pytest.approx(best.dev)
    assert f"after step {best.step}" in (result.model_dir / "README.md").read_text()
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob("checkpoint*"))


def test_there_is_dropout_while_it_trains(config, triplets, tmp_path, monkeypatch):
    embed, distances = TorchEngine.embed, []

    def twice(self, sequences, seed):
        embedding_BD = embed(self, sequences, seed)
        with torch.no_grad():
            for other in (seed, seed + 1):
                distances.append(float((embed(self, sequences, other) - embedding_BD).abs().max()))
        return embedding_BD

    monkeypatch.setattr(TorchEngine, "embed", twice)
    fit(config.model_copy(update={"epochs": 1}), triplets, seed=3, out=tmp_path)
    assert max(distances[::2]) == 0, "the seed decides it"
    assert min(distances[1::2]) > 0.01


def test_same_seed_same_bits_other_seed_other_model(config, triplets, tmp_path):
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        fit(config, triplets, seed=seed, out=tmp_path / name)
    assert_same_bits(tmp_path / "one", tmp_path / "same")
    one, other = weights(tmp_path / "one"), weights(tmp_path / "other")
    word = next(name for name in one if "word_embeddings" in name)
    assert not torch.equal(one[word], other[word])


_KILLED = """
import sys
from pathlib import Path
import pyarrow.parquet as pq
import torch
from multicsr.config import TrainConfig
from multicsr.stages.train.fit import fit

torch.set_num_threads(1)
class Slow:
    def start(self, stage, total, unit="rows"): ...
    def advance(self, amount=1, note=""): import time; time.sleep(0.1)
    def skip(self, amount): ...
    def finish(self, summary): ...
config, triplets, out = sys.argv[1:]
config = TrainConfig.model_validate_json(Path(config).read_text())
triplets = pq.read_table(triplets)
fit(config, triplets, seed=3, out=Path(out), progress=Slow())
"""


def with_labelled(config: TrainConfig, triplets: pa.Table, folder: Path) -> TrainConfig:
    """The configuration with a file of labelled triplets of weight 2, every other one a pair."""
    lines = ["anchor\tpositive\tnegative"]
    for number, row in enumerate(triplets.slice(30, 40).to_pylist()):
        negative = row["contradiction"] if number % 2 else ""
        lines.append(f"{row['entailment']} ba\t{row['text']} ba\t{negative}")
    (folder / "labelled.tsv").write_text("\n".join(lines))
    file = TripletFile(path=str(folder / "labelled.tsv"), weight=2)
    return config.model_copy(update={"extra_triplets": [file]})


def test_labelled_triplets_are_trained_on_together_with_the_curated_ones(config, triplets, tmp_path):
    alone = fit(config, triplets, seed=3, out=tmp_path / "alone")
    joined = fit(with_labelled(config, triplets, tmp_path), triplets, seed=3, out=tmp_path / "joined")
    assert (alone.steps, joined.steps) == (3 * (96 // 16), 3 * (136 // 16))


@pytest.mark.parametrize("is_labelled", [pytest.param(False, marks=pytest.mark.cluster), True])
def test_killed_and_resumed_ends_with_the_same_bits(is_labelled, config, triplets, tmp_path):
    config = config.model_copy(update={"epochs": 6, "checkpoint_every_s": 0.25})
    config = with_labelled(config, triplets, tmp_path) if is_labelled else config
    (tmp_path / "config.json").write_text(config.model_dump_json(exclude_unset=True))
    pq.write_table(triplets, tmp_path / "triplets.parquet")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-c", _KILLED]
    command += [str(tmp_path / "config.json"), str(tmp_path / "triplets.parquet"), str(killed)]
    with subprocess.Popen(command) as process:
        while process.poll() is None and not list(killed.glob("checkpoint-*.pt")):
            time.sleep(0.02)
        time.sleep(0.35)  # some steps past the checkpoint
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        done_before = len(steps_of(killed))
        resumed = fit(config, triplets, seed=3, out=killed)
        undisturbed = fit(config, triplets, seed=3, out=whole)
    finally:
        torch.set_num_threads(threads)
    assert 0 < done_before < undisturbed.steps
    assert (resumed.steps, resumed.best_step, resumed.best_dev) == (
        undisturbed.steps,
        undisturbed.best_step,
        undisturbed.best_dev,
    )
    assert_same_bits(killed, whole)
    same = [(line.step, line.loss, line.masked) for line in steps_of(whole)]
    assert [(line.step, line.loss, line.masked) for line in steps_of(killed)] == same


def test_without_a_mask_nothing_is_masked(config, triplets, tmp_path):
    fit(config.model_copy(update={"mask": None, "epochs": 1}), triplets, seed=3, out=tmp_path)
    assert {line.masked for line in steps_of(tmp_path)} == {0.0}


def test_unsupervised_simcse_lowers_its_loss(config, triplets, tmp_path):
    unsup = config.model_copy(update={"objective": "simcse_unsup", "mask": None, "epochs": 12, "dev": None})
    result = fit(unsup, triplets.select(["row_id", "text"]), seed=3, out=tmp_path)
    steps = steps_of(tmp_path)
    assert sum(line.loss for line in steps[-6:]) < 0.8 * sum(line.loss for line in steps[:6])
    assert (result.best_step, result.best_dev) == (result.steps, None)


def test_unsupervised_simcse_without_dropout_is_rejected(tiny, config, triplets, tmp_path):
    update = {"objective": "simcse_unsup", "mask": None, "dev": None, "pooling": "mean"}
    config = config.model_copy(update={**update, "encoder": str(tiny("llama"))})
    with pytest.raises(ConfigError, match=r"train\.objective: .* has no dropout; take another"):
        fit(config, triplets.select(["row_id", "text"]), seed=3, out=tmp_path)


def test_matryoshka_makes_shortened_vectors_better(config, triplets, dev_file, tmp_path):
    """Eight of 32 entries, on the triplets that it was trained on."""
    config = config.model_copy(update={"epochs": 12, "dev": None})
    losses = {}
    for name, widths in (("whole", []), ("shortened", [8, 16])):
        fit(config.model_copy(update={"matryoshka": widths}), triplets, seed=3, out=tmp_path / name)
        model = SentenceTransformer(str(tmp_path / name / "model"), device="cpu", truncate_dim=8)
        losses[name] = read_task(dev_file).measure(encoding(model))[0].score.value
    assert losses["shortened"] > losses["whole"]


def test_matryoshka_width_that_is_not_below_the_encoder_s_is_rejected(config, triplets, tmp_path):
    config = config.model_copy(update={"matryoshka": [16, 32]})
    with pytest.raises(ConfigError, match=r"train\.matryoshka: vectors of .* have 32 entries; .* not 32"):
        fit(config, triplets, seed=3, out=tmp_path)


def test_warm_up_of_no_more_than_a_step_is_said(config, triplets, tmp_path, caplog):
    fit(config.model_copy(update={"warmup": 0.05, "epochs": 1}), triplets, seed=3, out=tmp_path / "none")
    assert "train.warmup: 0.05 of 6 steps is no more than one step" in caplog.text
    caplog.clear()
    fit(config.model_copy(update={"warmup": 0.5, "epochs": 1}), triplets, seed=3, out=tmp_path / "three")
    assert "warmup" not in caplog.text


def test_a_loss_that_is_not_finite_names_the_row(tiny_bert, config, triplets, tmp_path):
    """One word's vector is broken: the rows that hold it are to blame, and no step is taken."""
    broken = tmp_path / "broken"
    subprocess.run(["cp", "-r", str(tiny_bert), str(broken)], check=True)
    state = load_file(broken / "model.safetensors")
    name = next(key for key in state if "word_embeddings" in key)
    vocabulary = (broken / "vocab.txt").read_text().split("\n")
    state[name][vocabulary.index("[UNK]")] = math.nan
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    rows = triplets.to_pylist()
    rows[17]["entailment"] = "nobody knows these words"
    config = config.model_copy(update={"encoder": str(broken), "dev": None, "global_batch": 96})
    with pytest.raises(RunError, match=r"not finite at rows row17; lower train\.learning_rate"):
        fit(config, pa.Table.from_pylist(rows), seed=3, out=tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()


def test_a_zero_vector_names_its_row(config, triplets, tmp_path, monkeypatch):
    """It is finite, and so is the loss; but the gradient of a cosine there is 1e12."""
    embed = TorchEngine.embed

    def with_a_zero(self, sequences, seed):
        keep_B1 = torch.ones(len(sequences), 1)
        keep_B1[16 + 5] = 0  # the positive of the batch's sixth row
        return embed(self, sequences, seed) * keep_B1

    monkeypatch.setattr(TorchEngine, "embed", with_a_zero)
    rows = make_plan(config, join_index([digest_rows(triplets, config.objective)]), 3).row_BG[0]
    name = triplets["row_id"][rows[5]].as_py()
    with pytest.raises(
        RunError, match=rf"gives a zero vector, which has no cosine, at rows {name}; take another"
    ):
        fit(config.model_copy(update={"dev": None}), triplets, seed=3, out=tmp_path)


def test_a_full_disk_is_one_line_and_leaves_no_model(config, triplets, tmp_path):
    """A limit on the size of files stands for the full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(RunError, match="store: cannot write") as caught:
            fit(config, triplets, seed=3, out=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()
    fit(config, triplets, seed=3, out=tmp_path)
    assert (tmp_path / "model").exists()


def test_too_few_triplets(config, triplets, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.global_batch"):
        fit(config, triplets.slice(0, 15), seed=3, out=tmp_path)


def test_a_sigma_that_masks_everything(config, triplets, tmp_path):
    mask = config.mask.model_copy(update={"sigma": 1e-6})
    with pytest.raises(ConfigError, match=r"train\.mask\.sigma: at 1e-06 the mask removes every other row"):
        fit(config.model_copy(update={"mask": mask, "dev": None}), triplets, seed=3, out=tmp_path)
    assert not (tmp_path / "model").exists()


def test_a_damaged_checkpoint_only_costs_its_steps(config, triplets, tmp_path, caplog):
    config = config.model_copy(update={"dev": None})
    fit(config, triplets, seed=3, out=tmp_path / "whole")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/checkpoint-00000004.pt").write_bytes(b"half of it")
    fit(config, triplets, seed=3, out=tmp_path / "damaged")
    assert_same_bits(tmp_path / "whole", tmp_path / "damaged")
    assert re.search(r"checkpoint .* is damaged: [^\n]*; the training starts anew", caplog.text)


class Recorded:
    """A tracker that remembers how the training ended."""

    def __init__(self, broken_at: int | None) -> None:
        self.ends, self._broken_at = [], broken_at

    def write(self, lines) -> None:
        if any(line.step == self._broken_at for line in lines):
            raise KeyboardInterrupt

    def close(self, end) -> None:
        self.ends.append(end)
        raise OSError("the disk is full, too")


@pytest.mark.parametrize(
    ("broken", "error", "end"),
    [
        ("step", RuntimeError, "FAILED"),
        ("model", RuntimeError, "FAILED"),
        ("interrupt", KeyboardInterrupt, "KILLED"),
        ("nothing", RunError, "FINISHED"),
    ],
)
def test_trackers_receive_the_end_state_of_a_training(
    config, triplets, tmp_path, monkeypatch, broken, error, end
):
    """And an error of theirs hides none of the training's."""
    tracker = Recorded(3 if broken == "interrupt" else None)
    monkeypatch.setattr(reporters, "open_trackers", lambda *_, **__: [tracker])

    def fail(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    if broken in ("step", "model"):
        owner, name = {"step": (TorchEngine, "step"), "model": (encoder, "save_encoder")}[broken]
        monkeypatch.setattr(owner, name, fail)
    with pytest.raises(error, match="the disk is full" if broken == "nothing" else "broken on purpose|"):
        fit(config.model_copy(update={"dev": None}), triplets, seed=3, out=tmp_path)
    assert tracker.ends == [end]


def test_patience_ends_a_run_that_gets_no_better(config, triplets, tmp_path):
    """A rate of almost nothing changes no score: the second evaluation is not better, nor the third."""
    still = config.model_copy(update={"learning_rate": 1e-12, "epochs": 12, "patience": 2})
    result = fit(still, triplets, seed=3, out=tmp_path)
    devs = [line for line in read_log(tmp_path / "train.jsonl") if isinstance(line, DevScore)]
    assert [line.step for line in devs] == [0, 2, 4, 6]
    assert (result.best_step, result.steps) == (2, 8)
    assert SentenceTransformer(str(result.model_dir), device="cpu").encode(["ba"]).shape == (1, 32)


def test_accumulated_batches_average(config, triplets, tmp_path):
    """One step of two batches has the mean of their losses, before anything is learned from either."""
    still = {"learning_rate": 1e-30, "dev": None, "epochs": 1}
    fit(config.model_copy(update=still), triplets, seed=3, out=tmp_path / "one")
    fit(config.model_copy(update={**still, "accumulate": 2}), triplets, seed=3, out=tmp_path / "two")
    ones = [step.loss for step in steps_of(tmp_path / "one")]
    twos = [step.loss for step in steps_of(tmp_path / "two")]
    assert twos == pytest.approx([(a + b) / 2 for a, b in zip(ones[::2], ones[1::2], strict=False)])
