"""The loss for sentence-transformers' trainer: Eq. 7 on real forward passes, in one process and in two."""

import copy
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import column_merging_disabled
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from tokenizers import processors
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel
from transformers import BertTokenizerFast

from multicsr.models.encoder import load_encoder
from multicsr.st_loss import MaskedInfoNCELoss, _token_ids, _without_prompt
from multicsr.stages.train.objectives.losses import LossInputs, masked_infonce
from multicsr.stages.train.objectives.mask import keep_cells, similarity
from tests.support.encoder_kinds import save_kind
from tests.support.gloo import leave, meet

SIGMA, TAU, ROWS = 0.92, 0.1, 12

Columns = list[list[str]]


@pytest.fixture
def model(tiny_bert) -> SentenceTransformer:
    """G, without dropout so that forward passes can be compared."""
    return load_encoder(str(tiny_bert), pooling="cls").eval()


@pytest.fixture
def mask_model(tiny_bert) -> SentenceTransformer:
    return load_encoder(str(tiny_bert), pooling="mean")


@pytest.fixture
def columns(triplets) -> Columns:
    return [triplets[name].to_pylist()[:ROWS] for name in ("text", "entailment", "contradiction")]


def features(model: SentenceTransformer, columns: Columns) -> list[dict]:
    return [model.preprocess(texts) for texts in columns]


def embed(model: SentenceTransformer, columns: Columns) -> list[torch.Tensor]:
    return [model(column)["sentence_embedding"] for column in features(model, columns)]


def expected_loss(model: SentenceTransformer, mask_model: SentenceTransformer, columns: Columns):
    """Eq. 7 from each encoder's own view of the texts; the mask must be of some use."""
    anchor_ND, positive_ND, negative_ND = embed(model, columns)
    p_ND, *p_hypotheses = embed(mask_model, columns)
    cosine_NC = similarity(p_ND, torch.cat(p_hypotheses))
    keep_NC = keep_cells(cosine_NC, SIGMA)
    assert 0.1 < (~keep_NC).double().mean() < 0.9
    assert ((cosine_NC - SIGMA).abs() > 1e-5).all(), "the last digits must not matter"
    inputs = LossInputs(anchor_ND, positive_ND, TAU, negative_GD=negative_ND, keep_NC=keep_NC)
    return masked_infonce(inputs)


def gradients(loss: torch.Tensor, model: SentenceTransformer) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))


def test_it_is_masked_infonce_of_both_encoders(model, mask_model, columns):
    loss = MaskedInfoNCELoss(model, mask_model, SIGMA, TAU)(features(model, columns), None)
    expected = expected_loss(model, mask_model, columns)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradients(loss, model), gradients(expected, model), rtol=1e-4, atol=1e-6)


def test_without_a_mask_it_is_multiple_negatives_ranking(model, columns):
    loss = MaskedInfoNCELoss(model, None, temperature=TAU)(features(model, columns), None)
    theirs = MultipleNegativesRankingLoss(model, scale=1 / TAU)(features(model, columns), None)
    torch.testing.assert_close(loss, theirs)


@pytest.fixture
def other_tokenizer(mask_model) -> SentenceTransformer:
    """P with the same words under other numbers."""
    words = sorted(numbers := mask_model.tokenizer.get_vocab(), key=numbers.get)
    words = [*words[:5], *reversed(words[5:])]
    mask_model[0].processor = BertTokenizerFast(vocab={word: number for number, word in enumerate(words)})
    return mask_model


def test_a_mask_model_with_another_tokenizer_reads_the_sentences(model, other_tokenizer, columns):
    loss = MaskedInfoNCELoss(model, other_tokenizer, SIGMA, TAU)(features(model, columns), None)
    torch.testing.assert_close(loss, expected_loss(model, other_tokenizer, columns))


def test_mask_model_whose_tokenizer_frames_sentences_differently_reads_the_sentences(
    model, mask_model, columns
):
    """It has the same vocabulary, but puts no [SEP] at the end."""
    tokenizer = copy.deepcopy(mask_model.tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", tokenizer.cls_token_id)]
    )
    assert tokenizer.get_vocab() == model.tokenizer.get_vocab()
    mask_model[0].processor = tokenizer
    loss = MaskedInfoNCELoss(model, mask_model, SIGMA, TAU)(features(model, columns), None)
    torch.testing.assert_close(loss, expected_loss(model, mask_model, columns))


def test_mask_model_that_is_split_by_zero_3_is_rejected(model, mask_model):
    next(mask_model.parameters()).ds_id = 0  # as DeepSpeed marks it
    with pytest.raises(ValueError, match="split among the processes by ZeRO-3; load it before"):
        MaskedInfoNCELoss(model, mask_model)


def test_a_mask_model_of_shorter_texts_cuts_them_itself(model, mask_model, columns):
    mask_model.max_seq_length = 6
    loss = MaskedInfoNCELoss(model, mask_model, SIGMA, TAU)(features(model, columns), None)
    torch.testing.assert_close(loss, expected_loss(model, mask_model, columns))


def test_sentences_are_found_in_padded_and_in_flattened_features():
    """The second is what the collator makes for flash attention."""
    right = {"input_ids": [[2, 7, 3], [2, 3, 0]], "attention_mask": [[1, 1, 1], [1, 1, 0]]}
    left = {"input_ids": [[2, 7, 3], [0, 2, 3]], "attention_mask": [[1, 1, 1], [0, 1, 1]]}
    flat = {"input_ids": [[2, 7, 3, 2, 3]], "cu_seq_lens_q": [0, 3, 5]}
    for features in (right, left, flat):
        tensors = {name: torch.tensor(value) for name, value in features.items()}
        assert _token_ids(tensors) == [[2, 7, 3], [2, 3]]


def prompted(model: SentenceTransformer, columns: Columns, prompts: list[str | None]) -> list[dict]:
    """As the trainer's collator does it."""
    return [model.preprocess(texts, prompt=prompt) for texts, prompt in zip(columns, prompts, strict=True)]


@pytest.mark.parametrize(
    "prompts", [["ta na ko "] * 3, ["ta na ko ", None, None], ["ta ", "mu mu ", "mu mu "]]
)
@pytest.mark.parametrize("kind", ["same tokens", "other tokens"])
def test_the_mask_model_does_not_see_the_trainer_s_prompts(
    model, mask_model, columns, prompts, kind, request
):
    if kind == "other tokens":
        mask_model = request.getfixturevalue("other_tokenizer")
    loss = MaskedInfoNCELoss(model, mask_model, SIGMA, TAU)
    keep_NC = loss._keep(prompted(model, columns, prompts))
    assert torch.equal(keep_NC, loss._keep(features(model, columns)))
    assert not keep_NC.all()


def test_the_mask_model_has_a_prompt_of_its_own(model, mask_model, columns):
    plain = MaskedInfoNCELoss(model, mask_model, SIGMA, TAU)._keep(features(model, columns))
    given = MaskedInfoNCELoss(model, mask_model, SIGMA, TAU, mask_prompt="ta na ko ")
    mask_model.prompts, mask_model.default_prompt_name = {"p": "ta na ko "}, "p"
    default = MaskedInfoNCELoss(model, mask_model, SIGMA, TAU)
    texts = [[f"ta na ko {text}" for text in column] for column in columns]
    mask_model.default_prompt_name = None
    expected = MaskedInfoNCELoss(model, mask_model, SIGMA, TAU)._keep(features(model, texts))
    assert not torch.equal(expected, plain)
    for loss in (given, default):
        assert torch.equal(loss._keep(prompted(model, columns, ["de de ", None, None])), expected)
    with pytest.raises(ValueError, match="mask_prompt has no effect without mask_model"):
        MaskedInfoNCELoss(model, None, mask_prompt="ta ")


def test_a_prompt_that_a_tokenizer_joins_with_the_first_word_takes_no_word_away():
    """Token 5 is the prompt's last one alone, 6 and 7 are that and a word."""
    assert _without_prompt([[1, 4, 6, 8], [1, 4, 7, 9]], 3) == [[6, 8], [7, 9]]
    assert _without_prompt([[1, 4, 5, 8], [1, 4, 5, 8]], 3) == [[8], [8]]
    assert _without_prompt([[1, 4, 5, 8], [1, 4, 5, 9]], torch.tensor([3, 3])) == [[8], [9]]
    assert _without_prompt([[1, 4]], 3) == [[]]
    assert _without_prompt([[1, 8], [2]], None) == [[1, 8], [2]]


@pytest.mark.parametrize(("who", "value"), [("mask_model", torch.nan), ("mask_model", 0.0), ("model", 0.0)])
def test_vectors_without_a_direction_are_rejected(model, mask_model, columns, who, value):
    """NaN is not above sigma and not below: it would mask whatever it meets."""
    broken = {"model": model, "mask_model": mask_model}[who]
    broken.register_forward_hook(
        lambda _, arguments, output: {**output, "sentence_embedding": output["sentence_embedding"] * value}
    )
    words = "zero" if value == 0 else "not finite"
    loss = MaskedInfoNCELoss(model, mask_model, SIGMA, TAU)
    with pytest.raises(
        ValueError, match=rf"^{who} gives a vector that is {words} for the anchor of row 0 .*12 such"
    ):
        loss(features(model, columns), None)


def test_at_sigma_1_equal_texts_are_masked_whatever_they_are_padded_with(model, mask_model, columns):
    """Every positive is the anchor of the row before; a long one changes what their column is padded to."""
    anchors, _, negatives = columns
    positives = [*anchors[-1:], *anchors[:-1]]
    negatives = [negatives[0] + " ba" * 20, *negatives[1:]]
    loss = MaskedInfoNCELoss(model, mask_model, 1.0, TAU)
    batch = features(model, [anchors, positives, negatives])
    masked = {(n, c) for n, c in (~loss._keep(batch)).nonzero().tolist()}
    assert masked == {(n, (n + 1) % ROWS) for n in range(ROWS)}
    vectors = embed(mask_model, [anchors, positives])
    assert (similarity(*vectors).diagonal(1) < 1).any(), "the last bits would decide"


def test_the_mask_model_is_no_part_of_what_is_trained(model, mask_model):
    loss = MaskedInfoNCELoss(model, mask_model.train())
    loss.train()
    assert model.training
    assert not any(module.training for module in mask_model.modules())
    assert not any(p.requires_grad for p in mask_model.parameters())
    assert {id(p) for p in loss.parameters()} == {id(p) for p in model.parameters()}
    assert all(name.startswith("model.") for name in loss.state_dict())


def test_the_mask_model_leaves_nothing_in_what_the_model_reads(model, mask_model, columns):
    """Without merging, every encoder writes its output into the features it is given."""
    read: list[str] = []
    model.register_forward_pre_hook(lambda _, arguments: read.extend(arguments[0]))
    with column_merging_disabled():
        MaskedInfoNCELoss(model, mask_model)(features(model, columns), None)
    assert "input_ids" in read
    assert "sentence_embedding" not in read


def test_settings_are_there_for_the_model_card(model, mask_model):
    settings = {"sigma": 0.75, "temperature": 0.1, "gather_across_devices": True}
    loss = MaskedInfoNCELoss(model, mask_model, **settings)
    assert loss.get_config_dict() == {"mask_model": mask_model, "mask_prompt": None, **settings}


@pytest.mark.parametrize("num_columns", [1, 2, 4])
def test_other_columns_are_rejected(model, mask_model, columns, num_columns):
    batch = features(model, (columns * 2)[:num_columns])
    with pytest.raises(ValueError, match=f"anchor, positive and negative, not {num_columns}"):
        MaskedInfoNCELoss(model, mask_model)(batch, None)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"sigma": 0.0}, "sigma must be above 0"),
        ({"sigma": 1.01}, "at most 1"),
        ({"temperature": 0.0}, "temperature must be above 0"),
    ],
)
def test_settings_out_of_bounds_are_rejected(model, mask_model, settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        MaskedInfoNCELoss(model, mask_model, **settings)


def test_the_trained_model_is_rejected_as_mask_model(model):
    with pytest.raises(ValueError, match="load it a second time"):
        MaskedInfoNCELoss(model, model)


def test_a_trained_model_without_a_tokenizer_is_rejected(mask_model):
    with pytest.raises(ValueError, match="needs a tokenizer"):
        MaskedInfoNCELoss(SentenceTransformer(modules=[torch.nn.Identity()]), mask_model)


@pytest.mark.parametrize("kind", ["static", "truncate_dim", "default prompt", "last token"])
def test_a_mask_model_of_any_kind_gives_the_mask_of_its_encode(kind, model, columns, tmp_path):
    mask_model = SentenceTransformer(str(save_kind(kind, tmp_path)), device="cpu")
    p_ND, *p_hypotheses = (torch.from_numpy(mask_model.encode(texts)) for texts in columns)
    cosine_NC = similarity(p_ND, torch.cat(p_hypotheses))
    sigma = float(cosine_NC.quantile(0.7))
    assert ((cosine_NC - sigma).abs() > 1e-5).all(), "the last digits must not matter"
    anchor_ND, positive_ND, negative_ND = embed(model, columns)
    keep_NC = keep_cells(cosine_NC, sigma)
    inputs = LossInputs(anchor_ND, positive_ND, TAU, negative_GD=negative_ND, keep_NC=keep_NC)
    loss = MaskedInfoNCELoss(model, mask_model, sigma, TAU)(features(model, columns), None)
    torch.testing.assert_close(loss, masked_infonce(inputs))


def test_the_trainer_trains_with_it(tiny_bert, mask_model, triplets, tmp_path):
    datasets = pytest.importorskip("datasets")
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

    model = load_encoder(str(tiny_bert), pooling="cls")
    before = [p.clone() for p in mask_model.parameters()]
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path),
        max_steps=12,
        per_device_train_batch_size=16,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        seed=0,
    )
    data = datasets.Dataset.from_dict(
        {name: triplets[name].to_pylist() for name in ("text", "entailment", "contradiction")}
    )
    loss = MaskedInfoNCELoss(model, mask_model, sigma=0.75)
    trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=loss)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert not mask_model.training
    assert all(map(torch.equal, before, mask_model.parameters()))
    model.save_pretrained(str(tmp_path / "model"))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "multicsr.st_loss.MaskedInfoNCELoss" in card
    assert '"sigma": 0.75' in card


def loss_and_gradients(loss: MaskedInfoNCELoss, columns: Columns) -> tuple[torch.Tensor, list[torch.Tensor]]:
    value = loss(features(getattr(loss.model, "module", loss.model), columns), None)
    value.backward()
    return value.detach(), [p.grad for p in loss.model.parameters() if p.requires_grad]


def global_loss(path: Path) -> MaskedInfoNCELoss:
    model = load_encoder(str(path), pooling="cls").eval().double()
    mask_model = load_encoder(str(path), pooling="mean").double()
    return MaskedInfoNCELoss(model, mask_model, SIGMA, TAU, gather_across_devices=True)


def work(rank: int, world_size: int, path: Path, columns: Columns, folder: Path) -> None:
    """One process of a training: its slice of the batch, gradients as DDP averages them."""
    meet(folder / "meeting", rank, world_size)
    loss = global_loss(path)
    loss.model = DistributedDataParallel(loss.model)
    n = len(columns[0]) // world_size
    own = [texts[rank * n : (rank + 1) * n] for texts in columns]
    torch.save(loss_and_gradients(loss, own), folder / f"{rank}.pt")
    leave()


def test_two_processes_that_gather_are_one(tiny_bert, columns, tmp_path):
    multiprocessing.spawn(work, (2, tiny_bert, columns, tmp_path), nprocs=2, daemon=True)
    (loss_0, gradients_0), (loss_1, gradients_1) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    loss, gradients = loss_and_gradients(global_loss(tiny_bert), columns)
    assert loss_0 != loss_1, "each process has the mean over its own anchors"
    torch.testing.assert_close((loss_0 + loss_1) / 2, loss, rtol=1e-12, atol=1e-12)
    for rank_gradients in (gradients_0, gradients_1):
        torch.testing.assert_close(rank_gradients, gradients, rtol=1e-9, atol=1e-12)
