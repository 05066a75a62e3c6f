"""Targets on which jobs run: this machine, a Ray cluster, Kubernetes."""
