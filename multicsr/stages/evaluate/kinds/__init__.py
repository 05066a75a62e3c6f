"""The kinds of tasks. `KINDS` is the one list of them; each has a module here."""

from multicsr.stages.evaluate.kinds import (
    alignment,
    bitext,
    changed_meaning,
    clustering,
    pair_classification,
    reranking,
    retrieval_files,
    sts,
    transfer,
    triplets,
)
from multicsr.stages.evaluate.kinds.reader import Kind

KINDS: tuple[Kind, ...] = (
    sts.KIND,
    triplets.KIND,
    retrieval_files.KIND,
    changed_meaning.KIND,
    reranking.KIND,
    transfer.KIND,
    pair_classification.KIND,
    clustering.KIND,
    alignment.KIND,
    bitext.KIND,
)
"""All kinds. A file belongs to the first kind that recognises it: those with more columns come first."""

__all__ = ["KINDS"]
