"""Quantisation of the Llama's linear layers.

STAB and the projector, a hundredth of the weights, stay in half precision, as do the embeddings and
the head: every token depends on them.
"""
