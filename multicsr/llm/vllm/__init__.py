"""Contrastive generation (MultiCSR Eq. 2) on vLLM: both prompts of a pair decode in the same engine steps.

vLLM supports single sequences only. Here two sequences share every token:

engine.py          the engine that the generate stage calls
pair_client.py     submits a pair, accepts only tokens that both members agree on, and continues from there
pair_scheduler.py  decides which requests are admitted and read, so that the members of a pair stay together
forced_logits.py   gives both members of a pair their common token in a step, any other row a sentinel token
pair_metadata.py   metadata of both requests, and the sentinel tokens by which the engine reports a problem
plugin.py          the only file that uses private interfaces of vLLM
batch_invariance.py  tries whether logits depend on the batch at all
launch.py          starts an engine with these classes, through documented interfaces only
child_output.py    keeps the output of the engine's processes

`forced_logits` and `pair_client` make a wrong token impossible, whatever the scheduler does;
`pair_scheduler` keeps the number of tokens that are written twice small.
"""
