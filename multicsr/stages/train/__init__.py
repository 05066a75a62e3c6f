"""Stage 3: an encoder trained on curated triplets with false negatives masked (MultiCSR Sec. 3.3)."""
