"""The losses and the mask that they apply."""
