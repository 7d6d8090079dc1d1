"""The StefaLand network: embedding, encoder, decoder, heads, and the files they travel in.

Only the submodules that compute import torch; the description of a model
(`xstefa.model.checkpoint`) does not, so that a prediction can be planned without it.
"""
