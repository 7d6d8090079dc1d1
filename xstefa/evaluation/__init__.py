"""How good a model is, and how that is known: scores, cross-validation, comparisons.

Nothing here imports torch before a model is run.
"""
