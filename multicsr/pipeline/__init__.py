"""Orchestration of the stages: full run, refresh run, and the difference of two artifacts."""
