"""The shipped tiny instruction LM and NLI judge: how they were made, and how they are measured.

`train` makes the LM, `judge` the judge, `evaluate` the figures of the model card. Nothing in the pipeline
imports this package: the LM is read from `multicsr/assets/tinylm` as any other model would be.
"""
