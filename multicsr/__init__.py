"""MultiCSR on Ray: unlabelled sentences in, a better sentence encoder out."""

__version__ = "0.1.0"
