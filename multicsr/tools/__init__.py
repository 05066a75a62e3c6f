"""Tools for a store, and for the machine: audit, explain, check, ablate, gc."""
