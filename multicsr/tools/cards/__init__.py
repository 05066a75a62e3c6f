"""Cards of a version's encoder and of its curated triplets, in the format of the Hugging Face hub."""

from multicsr.tools.cards.dataset import dataset_card
from multicsr.tools.cards.model import complete_card

__all__ = ["complete_card", "dataset_card"]
