import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("openai")

from pandacli.errors import ModelError, UsageError
from pandacli.evaluation.judge import Case, Judge, JudgeSettings, load_prompts
from pandacli.evaluation.replies import MATCH, TASKS, Replies, Verdict, read_reply
from tests.fake_judge import FINGERPRINT, fake_judge

CASES = [
    Case(MATCH, f"What is it, number {number}?", "dog", "Dog." if number % 3 else "cat")
    for number in range(12)
]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def ask(path: Path, url: str, cases: list[Case] = CASES, jobs: int = 4) -> dict[Case, object]:
    with Replies(path) as replies:
        return dict(Judge(JudgeSettings("judge", url, jobs=jobs), replies).verdicts(cases))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"pred": "yes", "score": 4}', Verdict(4, True)),
        ("{'pred': 'No', 'score': '2'}", Verdict(2, False)),
        ("```json\n{'pred': 'yes', 'score': 4.8}\n```", Verdict(4, True)),
        ("pred: yes, score: 3", Verdict(3, True)),
        ("Pred = no; Score = 0", Verdict(0, False)),
        ("I think {so} {'pred': 'yes', 'score': 5}.", Verdict(5, True)),
        ('{"pred": "Yes.", "score": "4/5"}', Verdict(4, True)),
        ('{"pred": false, "score": 4.5, "why": {"a": {}}}', Verdict(4, False)),
        ('{"Pred": "no", "Score": "3 out of 5", "why": {"score": 5}}', Verdict(3, False)),
        ('"{score: 5}" is wrong: {"pred": "no", "score": 1}', Verdict(1, False)),
        ('{"pred": "yes", "score": 1} or rather {"pred": "no", "score": 2}', Verdict(2, False)),
        ('{"pred": "yes", "score": 9}', None),
        ('{"pred": "yes", "score": 5.5}', None),
        ('{"pred": "yes", "score": -0.5}', None),
        ('{"pred": "yes", "score": true}', None),
        ('{"pred": "yes", "score": NaN}', None),
        ('{"pred": "unknown", "score": 3}', None),
        ('{"pred": "maybe", "score": 3}', None),
        ('{"score": 3}', None),
        ("yes", None),
        ("", None),
        ("{" * 10_000, None),
    ],
)
def test_reads_a_verdict_in_json_python_or_plain_text(text: str, verdict: Verdict | None) -> None:
    assert read_reply(text, MATCH) == verdict


def test_an_aspect_needs_a_score_only() -> None:
    assert read_reply('{"score": 3}', "detail") == Verdict(3)
    assert read_reply("The score: 4", "detail") == Verdict(4)


def test_every_case_has_its_own_verdict(tmp_path: Path) -> None:
    with fake_judge() as judge:
        verdicts = ask(tmp_path / "replies.jsonl", judge.url)
    assert verdicts == {
        case: Verdict(5, True) if case.prediction == "Dog." else Verdict(1, False) for case in CASES
    }
    assert len(judge.requests) == len(CASES)


def test_failing_requests_and_unreadable_replies_are_tried_again(tmp_path: Path) -> None:
    troubles = {1: 429, 2: 500, 3: "nonsense", 4: "slow", 5: 503, 6: "empty", 7: "drop", 8: "tear"}
    with fake_judge(lambda n: troubles.get(n, "ok")) as judge:
        verdicts = ask(tmp_path / "replies.jsonl", judge.url)
    assert all(isinstance(verdict, Verdict) for verdict in verdicts.values())
    again = [r for r in judge.requests if len(r["messages"]) > 2]
    assert again
    assert all(r["messages"][-2]["role"] == "assistant" for r in again)


def test_a_first_request_that_keeps_failing_is_retried_once_others_are_answered(
    tmp_path: Path,
) -> None:
    def behave(_: int) -> str:
        asked = [request["messages"][1] for request in judge.requests]
        return "drop" if asked[-1] == asked[0] and asked.count(asked[0]) < 5 else "ok"

    with fake_judge(behave) as judge:
        verdicts = ask(tmp_path / "replies.jsonl", judge.url)
    assert all(isinstance(verdict, Verdict) for verdict in verdicts.values())


def test_a_judge_that_never_makes_sense_is_a_failure_after_three_replies(tmp_path: Path) -> None:
    with fake_judge(lambda _: "nonsense") as judge:
        verdicts = ask(tmp_path / "replies.jsonl", judge.url, CASES[:2])
        assert len(judge.requests) == 6
        assert ask(tmp_path / "replies.jsonl", judge.url, CASES[:2]) == verdicts
        assert len(judge.requests) == 6
    assert all("no readable reply in 3 attempts" in str(v) for v in verdicts.values())


def test_kept_replies_are_not_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    with fake_judge() as judge:
        first = ask(path, judge.url, CASES[:5])
        assert ask(path, judge.url)
        assert len(judge.requests) == len(CASES)
    assert len(first) == 5


def test_models_are_those_of_the_replies_that_count(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    with fake_judge() as endpoint, Replies(path) as replies:
        Judge(JudgeSettings("other", endpoint.url), replies).verdicts(CASES[:1])
        judge = Judge(JudgeSettings("judge", endpoint.url), replies)
        assert not judge.models
        judge.verdicts(CASES[:1])
    assert list(judge.models) == [f"judge-1 ({FINGERPRINT})"]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_dropped_and_asked_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "replies.jsonl"
    with fake_judge() as judge:
        ask(path, judge.url, CASES[:3])
        whole = path.read_bytes()
        path.write_bytes(whole[:-cut])
        ask(path, judge.url, CASES[:3])
        assert len(judge.requests) == 4
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_file_that_is_something_else_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes\nmore\n")
    with pytest.raises(UsageError, match="not a file of judge replies"), Replies(path):
        pass
    assert path.read_text() == "my notes\nmore\n"


@pytest.mark.parametrize("text", ["my notes", '{"id": "1", "pred": "x"}', "\n"])
def test_a_foreign_file_without_a_last_newline_stays_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(UsageError, match="not a file of judge replies"), Replies(path):
        pass
    assert path.read_text() == text


def test_two_runs_cannot_write_one_file_of_replies(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    with (
        Replies(path),
        pytest.raises(UsageError, match="another run"),
        Replies(path),
    ):
        pass


@pytest.mark.parametrize(("status", "said"), [(401, "refuses the key"), (404, "has no model")])
def test_a_refusal_that_holds_for_all_ends_the_run(tmp_path: Path, status: int, said: str) -> None:
    with fake_judge(lambda _: status) as judge, pytest.raises(ModelError, match=said):
        ask(tmp_path / "replies.jsonl", judge.url)


def test_a_request_that_is_refused_alone_is_a_failure_of_its_case(tmp_path: Path) -> None:
    with fake_judge(lambda n: 400 if n == 2 else "ok") as judge:
        verdicts = ask(tmp_path / "replies.jsonl", judge.url, jobs=1)
    assert [v for v in verdicts.values() if isinstance(v, str)] == [
        "the judge failed with status 400: no to Bearer ***"
    ]


@pytest.mark.parametrize(
    ("how", "said"), [(400, "status 400"), (503, "status 503"), ("page", "no chat completion")]
)
def test_an_endpoint_that_keeps_failing_ends_the_run(
    tmp_path: Path, how: str | int, said: str
) -> None:
    with fake_judge(lambda n: "ok" if n <= 2 else how) as judge:
        with pytest.raises(
            ModelError, match=f"failed 10 times in a row, last with {said}"
        ) as raised:
            ask(tmp_path / "replies.jsonl", judge.url, jobs=1)
        judge.behave = lambda _: "ok"
        ask(tmp_path / "replies.jsonl", judge.url)
    assert "resumes" in str(raised.value.hint)
    whole = [r for r in judge.requests if r["messages"] == judge.requests[0]["messages"]]
    assert len(whole) == 1  # what was kept


def test_the_key_is_neither_shown_nor_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = f"sk-{random.randrange(10**20)}"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with fake_judge(lambda n: 400 if n % 2 else "ok") as judge:
        url = judge.url.replace("http://", "http://user:secret@") + f"?key={key}"
        settings = JudgeSettings("judge", url, jobs=1)
        with Replies(tmp_path / "replies.jsonl") as replies:
            verdicts = Judge(settings, replies).verdicts(CASES)
    failures = [verdict for verdict in verdicts.values() if isinstance(verdict, str)]
    assert failures
    assert set(failures) == {"the judge failed with status 400: no to Basic ***"}
    assert settings.shown_url == judge.url
    assert key not in (tmp_path / "replies.jsonl").read_text()


def test_openai_itself_needs_a_key(tmp_path: Path) -> None:
    with Replies(tmp_path / "r.jsonl") as replies, pytest.raises(UsageError, match="no key"):
        Judge(JudgeSettings("gpt"), replies)


def test_user_text_with_braces_is_not_a_placeholder(tmp_path: Path) -> None:
    case = Case(MATCH, "What is {answer}?", "dog", "{question} \ud800\x1b")
    with fake_judge() as judge:
        ask(tmp_path / "replies.jsonl", judge.url, [case])
    content = judge.requests[0]["messages"][1]["content"]
    assert "Question: What is {answer}?" in content
    assert "Predicted answer: {question} ?\x1b" in content


def test_prompts_of_a_file_take_the_place_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "prompts.toml"
    path.write_text('[match]\nuser = "Grade {prediction}"\n')
    assert load_prompts(path) == {**load_prompts(), MATCH: ("", "Grade {prediction}")}
    path.write_text('user = "Grade {prediction}"\n[detail]\nsystem = "Be strict."\n')
    prompts = load_prompts(path)
    assert prompts == {
        task: ("Be strict." if task == "detail" else "", "Grade {prediction}") for task in TASKS
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('user = "no placeholder"', "does not have"),
        ("user = 3", "no text"),
        ('[style]\nuser = "{prediction}"', "'style', which is no table"),
        ('match = "Grade {prediction}"', "'match', which is no table"),
        ("Grade {prediction}", "cannot read"),
        ("user =", "cannot read"),
    ],
)
def test_a_prompt_file_that_cannot_work_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "prompts.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        load_prompts(path)


KILLED = """
import sys
from pathlib import Path
from tests.evaluation.test_judge import CASES, ask

ask(Path(sys.argv[1]), sys.argv[2], CASES, jobs=2)
"""


def test_resumes_after_sigkill_without_asking_for_kept_replies(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    with fake_judge(lambda _: "slow") as judge:
        run = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), judge.url],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        deadline = time.monotonic() + 60
        while not path.exists() or len(path.read_bytes().splitlines()) < 3:
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.01)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        kept = len(path.read_bytes().splitlines())
        time.sleep(0.5)  # requests in flight reach the judge, whose replies are lost
        judge.requests.clear()
        verdicts = ask(path, judge.url)
        assert len(judge.requests) == len(CASES) - kept
    assert all(isinstance(verdict, Verdict) for verdict in verdicts.values())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["digest"] for line in lines}) == len(CASES) == len(lines)
