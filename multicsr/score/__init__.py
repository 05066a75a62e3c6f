"""Stage 2's scores: what a model's text or label probabilities say on the scale from 0 to 5."""
