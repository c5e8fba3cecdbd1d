"""`panda` end to end, in a process of its own: a real clip, the real engine, the real `tiny`."""

import json
import shutil

import pytest

from pandacli.checkpoints.registry import MODELS, bundled_checkpoint
from pandacli.cli.frames import CLIP, QUESTIONS
from tests.fake_hub import SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG, published_config
from tests.modeling.official_layout import SMALL, tensors_of, write_bin_shards


@pytest.fixture(scope="module")
def demo(module_panda):
    """What `panda demo` does; it takes seconds, so once for all."""
    return module_panda("demo", "--stats")


def test_demo_answers_its_questions(demo):
    assert demo.returncode == 0
    lines = demo.stdout.decode().splitlines()
    for question in QUESTIONS:
        answer = lines[lines.index(f"> {question}") + 1]
        assert answer
        assert not answer.startswith(">")


def test_libraries_print_nothing(demo):
    names = ["frames", "tokens", "first token", "decode", "memory"]
    said = [line.split("  ")[0] for line in demo.stderr.decode().splitlines()]
    assert said == names * len(QUESTIONS)


def test_ask_answers_as_the_demo(module_panda, demo):
    done = module_panda("ask", str(CLIP), *QUESTIONS, "--model", "tiny", "--json")
    assert done.returncode == 0
    assert done.stderr == b""
    record = json.loads(done.stdout)
    assert record["model"] == "tiny"
    assert len(record["frames"]) == 8
    for question, answer in zip(QUESTIONS, record["answers"], strict=True):
        assert f"> {question}\n{answer['answer']}\n" in demo.stdout.decode()
        assert answer["finish_reason"] == "stop"


def test_stop_ends_the_answer_of_ask_and_chat(module_panda):
    options = ("--model", "tiny", "--stop", "never", "--stop", "moves")
    asked = module_panda("ask", str(CLIP), QUESTIONS[0], *options)
    said = module_panda("chat", str(CLIP), *options, "--no-log", stdin=QUESTIONS[0].encode())
    assert asked.stdout.strip() == said.stdout.strip() == b"A red circle"


def test_batch_with_stop_asks_again_and_without_it_resumes(module_panda, tmp_path):
    path, answers = tmp_path / "q.jsonl", tmp_path / "q.answers.jsonl"
    path.write_text(json.dumps({"video": str(CLIP), "question": QUESTIONS[0]}) + "\n")
    whole = ("batch", str(path), "--model", "tiny")
    assert module_panda(*whole).returncode == 0
    assert module_panda(*whole, PANDA_STOP="moves").returncode == 0
    first, second = map(json.loads, answers.read_text().splitlines())
    assert first["answer"].startswith("A red circle moves")
    assert second["answer"] == "A red circle"
    assert b"is answered already" in module_panda(*whole).stderr


@pytest.mark.parametrize("subfolder", ["videopanda_fitu", "videopanda_prtr1"])
def test_ask_runs_a_small_model_with_the_published_tokenizer(module_panda, tmp_path, subfolder):
    config = published_config(subfolder, **SMALL | {"vocab_size": 640})
    (tmp_path / "config.json").write_bytes(config)
    (tmp_path / "tokenizer_config.json").write_bytes(TOKENIZER_CONFIG)
    (tmp_path / "special_tokens_map.json").write_bytes(SPECIAL_TOKENS_MAP)
    shutil.copy(bundled_checkpoint(MODELS["tiny"]) / "tokenizer.model", tmp_path)
    write_bin_shards(tmp_path, tensors_of(json.loads(config)))
    options = ("--max-tokens", "2", "--frames", "4", "--json")
    done = module_panda("ask", str(CLIP), "What moves?", "--model", str(tmp_path), *options)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)["answers"][0]
    assert answer["stats"]["answer_tokens"] in (1, 2)
