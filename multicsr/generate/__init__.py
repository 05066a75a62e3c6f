"""Stage 1 and the scores of stage 2: premises in, scored triplets out."""
