"""Load a model once, and answer many questions about a clip behind one KV cache.

    RunSpec --resolved once--> Panda --open(clip)--> VideoSession --generate(requests)--> answers

Importing this package does not import torch; loading a model does.
"""

from pandacli.inference.panda import Panda
from pandacli.inference.spec import Answer, AnswerStream, GenerationOptions, Request

__all__ = ["Answer", "AnswerStream", "GenerationOptions", "Panda", "Request"]
