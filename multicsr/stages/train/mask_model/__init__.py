"""The mask model P: a frozen encoder that decides which in-batch negatives are false."""
