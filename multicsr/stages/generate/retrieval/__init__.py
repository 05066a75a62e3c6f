"""Retrieval of demonstrations: the labelled premises nearest to a premise (MultiCSR Appendix G).

labelled   on the driver: labelled triplets, one for each premise
encoder    P: its settings and where it runs
prepare    in actors with P: their vectors, in files of the store
nearest    exact search
retriever  in actors with the LLM: from premises to demonstrations
"""
