"""Engine that uses an endpoint with OpenAI's chat protocol."""
