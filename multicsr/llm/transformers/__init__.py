"""Engine on the transformers library: both prompts of a pair decode in one batch."""
