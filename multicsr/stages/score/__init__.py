"""Scores of MultiCSR stage 2 on the scale from 0 to 5, from a model's text or its label probabilities."""
