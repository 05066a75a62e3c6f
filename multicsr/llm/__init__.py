"""Engines that query a language model, behind one protocol."""
