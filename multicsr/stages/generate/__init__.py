"""Stage 1 and the scores of stage 2 of MultiCSR: from premises to scored triplets."""
