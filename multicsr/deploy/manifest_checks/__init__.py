"""Checks, before a Kubernetes manifest is sent, that it can work."""
