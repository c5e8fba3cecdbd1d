"""Where `tiny` comes from: scenes of moving shapes, questions about them, training, evaluation.

`python -m training.train` makes the model, `python -m training.evaluate` asks it about clips that
it has never seen.
"""
