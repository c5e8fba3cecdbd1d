"""Requests and fake limits for tests of continuous batching."""

from pandacli.inference import Answer, GenerationOptions, Request
from pandacli.inference.continuous_batching import Generation
from pandacli.inference.session import VideoSession

QUESTIONS = [
    "what?",
    "Is there a circle, and what colour is the square that stays still while it moves left?",
    "which colour is it?",
    "What happens?",
    "yes, no, one, two, three",
    "left, right, up, down; is the triangle green?",
    "Is it white?",
]


REQUESTS = [
    Request(question, options=GenerationOptions(5 + 3 * number))
    for number, question in enumerate(QUESTIONS)
]


def ask(session: VideoSession, request: Request) -> Answer:
    options = request.options or GenerationOptions()
    return session.ask(request.question, history=request.history, max_tokens=options.max_tokens)


def texts(generation: Generation) -> list[str]:
    """The answers in the order of their requests; their pieces must join to them."""
    pieces: dict[int, str] = {}
    answers: dict[int, str] = {}
    for index, event in generation:
        if isinstance(event, str):
            pieces[index] = pieces.get(index, "") + event
        else:
            assert isinstance(event, Answer)
            answers[index] = event.text
    assert all(pieces.get(index, "") == text for index, text in answers.items())
    return [answers[index] for index in range(len(answers))]
