"""Searches on a small random model: what is scored again, and what is not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pandacli import Panda
from pandacli.errors import UsageError
from pandacli.inference.planning.planner import Plan, resolve_run
from pandacli.inference.spec import RunSpec
from pandacli.timeline.find import Failure, Moment, Ranking, Search, Wanted
from pandacli.timeline.looking import NO, YES, probability_of_yes
from pandacli.timeline.scores import ScoreStore
from tests.video.clips import write_clip

WANTED = Wanted("is there a circle?", frames=4)


@pytest.fixture(scope="module")
def plan(checkpoint: Path) -> Plan:
    return resolve_run(RunSpec(checkpoint, device="cpu"))


@pytest.fixture(scope="module")
def panda(plan: Plan) -> Panda:
    return Panda.from_plan(plan)


@pytest.fixture
def store(tmp_path: Path) -> Callable[[], ScoreStore]:
    """Opens the same database as a process of its own would."""
    return lambda: ScoreStore(path=tmp_path / "scores.sqlite", notice=pytest.fail)


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    """Three clips of 1, 2 and 3 seconds."""
    folder = tmp_path / "clips"
    folder.mkdir()
    return [write_clip(folder / f"{n}.mp4", 10 * n, rate=10) for n in (1, 2, 3)]


@pytest.fixture
def find(
    plan: Plan, panda: Panda, store: Callable[[], ScoreStore]
) -> Callable[..., tuple[int, list[Moment | Failure]]]:
    """Runs a search to its end: how many scores it computed, and what it found."""

    def run(
        paths: list[Path], wanted: Wanted = WANTED, plan: Plan = plan
    ) -> tuple[int, list[Moment | Failure]]:
        with store() as scores:
            search = Search(paths, wanted, plan, scores)
            found = [each for each in search.look_up() if each]
            if not search.is_complete:
                found += search.score(panda)
                assert search.share == pytest.approx(1)
        return search.scored, found

    return run


def test_whole_clips_are_scored_as_a_session_scores_them(
    find: Callable[..., tuple[int, list[Moment]]], panda: Panda, clips: list[Path]
) -> None:
    _, found = find(clips)
    for path, moment in zip(clips, found, strict=True):
        alone = panda.open(path, num_frames=4).score(WANTED.question, (*YES, *NO))
        expected = Moment(path, None, None, pytest.approx(probability_of_yes(alone), rel=1e-4))
        assert moment == expected


def test_windows_have_their_times(
    find: Callable[..., tuple[int, list[Moment]]], clips: list[Path]
) -> None:
    scored, found = find(clips, Wanted("a?", every=1.0, start=0.25, end=2.5, frames=4))
    spans = [(moment.path.name, moment.start, moment.end) for moment in found]
    assert spans == [
        ("1.mp4", 0.25, 1.0),
        *(("2.mp4", 0.25, 1.25), ("2.mp4", 1.25, 2.0)),
        *(("3.mp4", 0.25, 1.25), ("3.mp4", 1.25, 2.5)),
    ]
    assert scored == 5


@pytest.mark.parametrize("every", [None, 1.0])
def test_second_search_computes_only_what_is_new(
    find: Callable[..., tuple[int, list[Moment]]], clips: list[Path], every: float | None
) -> None:
    wanted = Wanted("a?", every=every, frames=4)
    assert find(clips[:2], wanted)[0] == (2 if every is None else 3)
    first = find(clips, wanted)
    assert first[0] == (1 if every is None else 3)
    assert find(clips, wanted) == (0, first[1])


def test_other_facts_are_other_scores(
    find: Callable[..., tuple[int, list[Moment]]], clips: list[Path], plan: Plan, tmp_path: Path
) -> None:
    """Each of these differs from all before it in one fact."""
    find(clips[:1])
    for other in (
        Wanted("is there a square?", frames=4),
        Wanted(WANTED.question, frames=8),
        Wanted(WANTED.question, frames=4, system="Be brief."),
        Wanted(WANTED.question, frames=4, start=0.5),
        Wanted(WANTED.question, frames=4, end=0.5),
        Wanted(WANTED.question, frames=4, every=0.5),
    ):
        assert find(clips[:1], other)[0] > 0, other
    fewer_bits = resolve_run(RunSpec(plan.model.folder, "8bit", device="cpu"))
    assert find(clips[:1], plan=fewer_bits)[0] == 1
    folder = shutil.copytree(plan.model.folder, tmp_path / "model")
    assert find(clips[:1], plan=resolve_run(RunSpec(folder, device="cpu")))[0] == 0
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    assert find(clips[:1], plan=resolve_run(RunSpec(folder, device="cpu")))[0] == 1


def test_renamed_clip_is_known_and_changed_one_is_not(
    find: Callable[..., tuple[int, list[Moment]]], clips: list[Path]
) -> None:
    wanted = Wanted("a?", every=1.0, frames=4)
    (scored, (before,)) = find(clips[:1], wanted)
    assert scored == 1
    renamed = clips[0].rename(clips[0].with_name("\x1b[31mother'\n.mp4"))
    assert find([renamed], wanted) == (0, [before._replace(path=renamed)])
    write_clip(renamed, 10, rate=10, numbers=[5] * 10)
    assert find([renamed], wanted)[0] == 1


def test_score_of_a_clip_that_changes_meanwhile_is_not_kept(
    plan: Plan, panda: Panda, store: Callable[[], ScoreStore], clips: list[Path]
) -> None:
    with store() as scores:
        search = Search(clips[:1], WANTED, plan, scores)
        assert list(search.look_up()) == [None]
        write_clip(clips[0], 12, rate=10)
        assert len(list(search.score(panda))) == 1
        assert scores.count == 0


def test_broken_clips_do_not_end_the_search(
    find: Callable[..., tuple[int, list[Moment | Failure]]], clips: list[Path], tmp_path: Path
) -> None:
    broken = [tmp_path / name for name in ("empty.mp4", "text.mp4", "missing.mp4", "cut.mp4")]
    broken[0].touch()
    broken[1].write_text("no video")
    broken[3].write_bytes(clips[2].read_bytes()[:700])
    paths = [broken[0], clips[0], *broken[1:], clips[1]]
    for every in (None, 1.0):
        for _ in range(2):  # failures are not remembered: the file may be repaired
            _, found = find(paths, Wanted("a?", every=every, frames=4))
            failures = [each.path for each in found if isinstance(each, Failure)]
            assert sorted(failures) == sorted(broken)
            moments = {each.path for each in found if isinstance(each, Moment)}
            assert moments == {clips[0], clips[1]}


def test_range_past_the_end_fails_for_that_clip(
    find: Callable[..., tuple[int, list[Moment | Failure]]], clips: list[Path]
) -> None:
    _, found = find(clips, Wanted("a?", every=1.0, start=2.5, frames=4))
    assert [type(each) for each in found] == [Failure, Failure, Moment]
    assert "past the end" in str(found[0].error)  # type: ignore[union-attr]


def test_search_without_a_store_computes_everything(
    plan: Plan, panda: Panda, clips: list[Path]
) -> None:
    for _ in range(2):
        search = Search(clips, WANTED, plan)
        assert [each for each in search.look_up() if each] == []
        assert len(list(search.score(panda))) == 3


def test_frames_that_the_model_cannot_look_at_are_refused(plan: Plan, clips: list[Path]) -> None:
    with pytest.raises(UsageError, match="cannot look at 9 frames"):
        Search(clips, Wanted("a?", frames=9), plan)


def test_ranking_keeps_the_best_in_order() -> None:
    ranking = Ranking(3)
    moments = [Moment(Path(str(n)), None, None, p) for n, p in enumerate([0.2, 0.9, 0.2, 0.5, 0.9])]
    for moment in moments:
        ranking.add(moment)
    assert ranking.moments == [moments[1], moments[4], moments[3]]
