"""HTTP server of OpenAI's protocol, with the pairs of MultiCSR Eq. 2 (`multicsr serve`).

bodies      what a client may send, with its bounds
errors      errors in OpenAI's form
tasks       from a body to work for the engine, from its result to an answer
scheduler   work that waits, and batches of it that run
text        text of tokens as it grows, for streaming
answers     what the server sends
app         paths, token, limits
server      the life of the process: address, model, signals
"""
