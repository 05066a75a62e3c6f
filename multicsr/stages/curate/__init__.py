"""Curation stage: select the triplets for training by thresholds on their scores."""
