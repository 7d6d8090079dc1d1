"""How good a model is, and how that is known: holdouts, scores, comparisons, pictures.

Nothing here imports torch before a model is run.
"""
