"""Training of `tiny`: scenes of moving shapes, questions about them, training, evaluation.

`python -m training.train` trains the model, `python -m training.evaluate` evaluates it on held-out
clips.
"""
