"""The rows of a training: index, order, reading and batches."""
