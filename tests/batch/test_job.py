"""The output of a batch: its format, its file, and the files that it must not replace."""

import json
from contextlib import ExitStack

import pytest

from pandacli.batch.clip_worker import Settings
from pandacli.batch.job import Batch, Job
from pandacli.batch.records import Record, RecordStore, record_hash
from pandacli.batch.results_file import ResultsFile
from pandacli.errors import ClipError, UsageError
from pandacli.inference.spec import GenerationOptions, RunSpec
from tests.batch.conftest import ask, settings_of

VIDEOS = ("wide.avi", "tall.avi")


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ("generic", "q.answers.json"),
        ("qa", "q.answers.json"),
        ("csv", "q.answers.csv"),
        ("openai", "q.answers.openai.jsonl"),
    ],
)
def test_output_is_written_beside_the_results_file(batch, shape, name) -> None:
    ran = batch([ask(1), ask(2, "tall.avi")], output_format=shape)
    assert ran.path.name == "q.answers.jsonl"
    assert (ran.path.with_name(name)).stat().st_size > 0
    assert len(ran.lines) == 2


def test_bad_line_is_in_the_table_of_one_shard(batch) -> None:
    records = [*(ask(n, video) for n, video in enumerate(VIDEOS)), b"not json"]
    shards = [batch(records, shard=(part, 2), output_format="csv") for part in (1, 2)]
    tables = [ran.path.with_suffix(".csv").read_text() for ran in shards]
    assert sum(table.count("not JSON") for table in tables) == 1


def test_symlinked_output_stays_a_symlink(batch, tmp_path) -> None:
    link, target = tmp_path / "link.csv", tmp_path / "elsewhere" / "table.csv"
    target.parent.mkdir()
    link.symlink_to(target)
    batch([ask(1)], output_format="csv", output=str(link))
    assert link.is_symlink()
    assert "wide.avi" in target.read_text()


def test_unwritable_output_is_refused_before_the_run(batch, tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        batch([ask(1)], output_format="qa", output=str(tmp_path / "folder"))
    assert not list(tmp_path.glob("*.answers.*"))


def test_output_linked_to_its_results_file_is_refused(batch, tmp_path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "link.answers.jsonl")
    with pytest.raises(UsageError, match="is where the answers are kept one by one"):
        batch([ask(1)], output_format="csv", output=str(tmp_path / "link.csv"))


@pytest.mark.parametrize("shape", ["csv", "qa", "generic-lines", "openai", "jsonl"])
@pytest.mark.parametrize("way", ["path", "symlink", "hard link", "foreign table"])
def test_foreign_file_is_never_replaced(batch, clips, tmp_path, shape, way) -> None:
    clip = tmp_path / "mine.avi"
    clip.write_bytes((clips / "wide.avi").read_bytes())
    output = clip if way == "path" else tmp_path / "out"
    if way == "symlink":
        output.symlink_to(clip)
    elif way == "hard link":
        output.hardlink_to(clip)
    elif way == "foreign table":
        output.write_text("video,question,notes\na,b,c\n")
    before = output.read_bytes()
    with pytest.raises(UsageError, match=r"not an earlier output|not a results file"):
        batch([ask(1, str(clip))], output_format=shape, output=str(output))
    assert output.read_bytes() == before
    assert not list(tmp_path.glob("*.answers.*"))


@pytest.mark.parametrize("shape", ["csv", "qa", "qa-lines"])
def test_earlier_output_and_empty_file_are_replaced(batch, tmp_path, shape) -> None:
    output = tmp_path / "out"
    output.touch()
    for count in (1, 2):
        batch([ask(n) for n in range(count)], output_format=shape, output=str(output))
        assert output.read_text().count("wide.avi") >= count


def test_file_that_replaced_the_output_during_the_run_is_kept(
    panda, clips, checkpoint, tmp_path, read_clips
) -> None:
    questions, output = tmp_path / "q.jsonl", tmp_path / "out.csv"
    questions.write_text(json.dumps(ask(1)))
    settings = settings_of(checkpoint)
    with Batch(Job(str(questions), settings, str(output), video_dir=clips)) as opened:
        list(opened.plan().outcomes(lambda: panda))
        output.write_text("my notes")
        with pytest.raises(UsageError, match="not an earlier output"):
            opened.finish(print)
    assert output.read_text() == "my notes"
    assert read_clips


@pytest.mark.parametrize(
    ("name", "start"),
    [("out.csv", "id,"), ("out.TSV", "id\t"), ("out.jsonl", '{"digest"'), ("out", '{"digest"')],
)
def test_suffix_of_the_output_decides_its_format(batch, tmp_path, name, start) -> None:
    batch([ask(1)], output=str(tmp_path / name))
    assert (tmp_path / name).read_text().startswith(start)


def test_json_lines_in_a_json_file_are_refused(batch, tmp_path) -> None:
    with pytest.raises(UsageError, match="which is not JSON"):
        batch([ask(1)], output=str(tmp_path / "out.json"))
    batch([ask(1)], output=str(tmp_path / "out.json"), output_format="qa")
    assert json.loads((tmp_path / "out.json").read_text())[0]["id"] == "1"


@pytest.mark.parametrize("named", [True, False])
def test_reference_answers_are_not_overwritten(tmp_path, checkpoint, named) -> None:
    questions, right = tmp_path / "test_q.json", tmp_path / "test_a.json"
    questions.write_text('[{"video_name": "a", "question": "Why?", "question_id": "1"}]')
    right.write_text('[{"answer": "so", "question_id": "1"}]')
    before = right.read_bytes()
    job = Job(
        str(questions),
        settings_of(checkpoint),
        output=str(right),
        output_format="qa",
        right_answers=right if named else None,
    )
    with pytest.raises(UsageError, match="is the file of the right answers"):
        Batch(job)
    assert right.read_bytes() == before


def test_questions_are_not_overwritten(batch, tmp_path) -> None:
    with pytest.raises(UsageError, match="is the file of the questions"):
        batch([ask(1)], output=str(tmp_path / "q.jsonl"))
    assert (tmp_path / "q.jsonl").read_bytes().startswith(b'{"id"')


def test_second_run_on_the_same_results_is_refused(batch, tmp_path, checkpoint) -> None:
    batch([ask(1)])
    job = Job(str(tmp_path / "q.jsonl"), settings_of(checkpoint))
    with Batch(job), pytest.raises(UsageError, match="is being written by another run"):
        batch([ask(1)])


@pytest.fixture
def unparsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the first record is parsed."""

    def append(*_: object) -> None:
        pytest.fail("the questions were parsed first")

    monkeypatch.setattr(RecordStore, "append", append)


@pytest.mark.usefixtures("unparsed")
@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("foreign", r"not an earlier output|not a results file"),
        ("folder", "is a folder"),
        ("no folder", "there is no folder"),
        ("questions", "is the file of the questions"),
        ("locked", "is being written by another run"),
    ],
)
def test_refused_output_is_found_before_the_questions_are_parsed(
    batch, tmp_path, way, message, name
) -> None:
    output = tmp_path / "missing" / name if way == "no folder" else tmp_path / name
    if way == "foreign":
        output.write_text("my notes")
    elif way == "folder":
        output.mkdir()
    elif way == "questions":
        output.symlink_to(tmp_path / "q.jsonl")
    with ExitStack() as stack:
        if way == "locked":
            results = output if output.suffix == ".jsonl" else tmp_path / "out.answers.jsonl"
            stack.enter_context(ResultsFile(results))
        with pytest.raises(UsageError, match=message):
            batch([ask(1)], output=str(output))


def test_unknown_output_format_is_a_usage_error(batch) -> None:
    with pytest.raises(UsageError, match="no output format 'xml'"):
        batch([ask(1)], output_format="xml")


def test_unreadable_questions_leave_no_output(batch, tmp_path, monkeypatch) -> None:
    def append(*_: object) -> None:
        raise ClipError("cannot be read")

    monkeypatch.setattr(RecordStore, "append", append)
    with pytest.raises(ClipError, match="cannot be read"):
        batch([ask(1)])
    assert [path.name for path in tmp_path.iterdir()] == ["q.jsonl"]


@pytest.mark.parametrize(
    ("settings", "digest"),
    [
        (Settings(RunSpec("tiny", "none", "torch")), "0190c6d8ac7687f4"),
        (
            Settings(
                RunSpec("tiny", "8bit", "torch", "cpu"),
                GenerationOptions(64, 0.5, 7),
                start=1.5,
                system="Be kind.",
                batch_size=4,
            ),
            "848c0d0a683e9541",
        ),
    ],
    ids=["defaults", "own"],
)
def test_digest_of_settings_is_stable_between_versions(settings: Settings, digest: str) -> None:
    fields = settings.digest_fields() | {"weights": "0" * 64, "dtype": "float32"}
    record = Record(3, {"video": "a.mp4", "question": "Why?", "id": 1}, "a.mp4", "Why?")
    assert f"{record_hash(fields)(record):016x}" == digest
