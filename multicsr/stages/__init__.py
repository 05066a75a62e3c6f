"""Stages of the pipeline, one package each; ARCHITECTURE.md shows their order in a diagram."""
