"""`panda` end to end, in a process of its own: a real clip, the real engine, the real `tiny`."""

import json

import pytest

from pandacli.cli.demo import CLIP, QUESTIONS


@pytest.fixture(scope="module")
def demo(module_panda):
    """What `panda demo` does; it takes seconds, so once for all."""
    return module_panda("demo", "--stats")


def test_the_demo_answers_its_questions(demo):
    assert demo.returncode == 0
    lines = demo.stdout.decode().splitlines()
    for question in QUESTIONS:
        answer = lines[lines.index(f"> {question}") + 1]
        assert answer
        assert not answer.startswith(">")


def test_the_libraries_below_say_nothing(demo):
    names = ["frames", "tokens", "time", "first token", "speed", "memory"]
    said = [line.split("  ")[0] for line in demo.stderr.decode().splitlines()]
    assert said == names * len(QUESTIONS)


def test_ask_answers_as_the_demo_does(module_panda, demo):
    done = module_panda("ask", str(CLIP), *QUESTIONS, "--model", "tiny", "--json")
    assert done.returncode == 0
    assert done.stderr == b""
    record = json.loads(done.stdout)
    assert record["model"] == "tiny"
    assert len(record["frames"]) == 8
    for question, answer in zip(QUESTIONS, record["answers"], strict=True):
        assert f"> {question}\n{answer['answer']}\n" in demo.stdout.decode()
        assert answer["finish_reason"] == "stop"
