"""MultiCSR Eq. 2 on vLLM: a hypothesis and its noisy twin are two requests that decode in lockstep.

vLLM knows single sequences only. Here two of them share every token:

ticket.py    what both requests carry, and the two tokens by which the engine tells that a step went wrong
forcing.py   the rows of one step: those of a whole pair get their common token, all others a signal
gangs.py     who may be read and seated when, so that the members of a pair are never apart
client.py    submits a pair, believes only what both members agree on, and goes on from there
door.py      the one door to vLLM: its private interfaces are touched in that file alone

`forcing` and `client` make a wrong token impossible, whatever the scheduler does; `gangs` makes sure that
hardly any is written twice.
"""
