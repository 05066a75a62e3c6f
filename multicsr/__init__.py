"""MultiCSR on Ray: training of a better sentence encoder from unlabelled sentences."""

__version__ = "0.1.0"
