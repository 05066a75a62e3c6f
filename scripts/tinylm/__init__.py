"""The shipped tiny instruction LM and NLI judge: the code that trained them and the code that measures them.

`train` trains the LM, `judge` the judge, and `evaluate` computes the figures of the model card. Nothing in
the pipeline imports this package: the LM is read from `multicsr/assets/tinylm` like any other model.
"""
