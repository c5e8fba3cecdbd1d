"""Quantisation of the Llama's linear layers."""
