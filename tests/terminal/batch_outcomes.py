"""Made-up outcomes of batch records."""

import re

from pandacli.batch.results import Outcome


def answer(question="What happens?", text="A circle moves.", line=1):
    return Outcome(line, "a.mp4", question, text, None, {})


def failure(message, line=17, video="a.mp4"):
    return Outcome(line, video, "What?", None, message, {})


def feed(display, counters, outcome):
    if outcome.error is None:
        counters.answered += 1
    else:
        counters.failed += 1
    display.update(outcome)


def plain(text):
    return re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()
