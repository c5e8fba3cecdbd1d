"""The question files that people already have, and answers in the shape that goes with each."""

from pandacli.batch.readers.questions import FORMATS, Questions, open_questions
from pandacli.batch.writers import OUTPUT_FORMATS, check_shape, is_in_shape, write_answers

__all__ = [
    "FORMATS",
    "OUTPUT_FORMATS",
    "Questions",
    "check_shape",
    "is_in_shape",
    "open_questions",
    "write_answers",
]
