"""`tiny` says by likelihood whether something is in a clip and does something, as `panda when`."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from pandacli import Panda
from pandacli.inference.spec import ScoreRequest, Scores
from pandacli.timeline.looking import NO, YES, probability_of_yes
from tests.tiny.clear_videos import frames_of
from tests.tiny.presence_questions import BEING, DOING, claims, in_window, questions
from tests.tiny.renderers import RENDERERS
from tests.tiny.synthetic_videos import SyntheticVideo, random_video

Rights = dict[str, list[bool]]


def presence(panda: Panda, clips: int, seed: int) -> dict[str, Rights]:
    """Whether P(yes) is on the right side of a half, by form, by what is wrong and by clip."""
    found: dict[str, Rights] = {name: defaultdict(list) for name in ("form", "wrong", "clip")}
    for number in range(clips):
        rng = np.random.default_rng((seed, number))
        sort, video = _drawn(number, rng)
        session = panda.open(frames_of(video, list(RENDERERS)[number % len(RENDERERS)]))
        asked = [
            (form, wrong, question)
            for wrong, claim in claims(video, rng)
            for form, question in questions(claim, video, rng, 3)
        ]
        requests = [ScoreRequest(question, (*YES, *NO)) for _, _, question in asked]
        for index, scores in session.score_all(requests):
            assert isinstance(scores, Scores)
            form, wrong, _ = asked[index]
            right = (probability_of_yes(scores) > 0.5) == (not wrong)
            found["form"][f"{form} {'no' if wrong else 'yes'}"].append(right)
            found["wrong"][wrong].append(right)
            found["clip"][sort].append(right)
    return found


def _drawn(number: int, rng: np.random.Generator) -> tuple[str, SyntheticVideo]:
    video = random_video(rng)
    if number % 8 == 7:
        return "empty", replace(video, actors=())
    return ("window", in_window(video, rng)) if number % 2 else ("whole", video)


def below(rights: Rights, share: float) -> dict[str, str]:
    """Where less than a share is right."""
    return {
        key: f"{sum(values)} of {len(values)}"
        for key, values in rights.items()
        if np.mean(values) < share
    }


def test_presence_is_right_in_clips_windows_and_empty_scenes(tiny: Panda) -> None:
    found = presence(tiny, 8, 11)
    assert sum(map(len, found["clip"].values())) > 100
    assert not below(found["clip"], 0.9)


@pytest.mark.slow
def test_presence_is_right_in_every_form_and_for_every_mistake(tiny: Panda) -> None:
    found = presence(tiny, 80, 12)
    assert len(found["form"]) == 2 * len(BEING + DOING)
    assert set(found["clip"]) == {"whole", "window", "empty"}
    assert not below(found["clip"], 0.95)
    assert not below(found["form"], 0.88)
    mixed = {name: found["wrong"].pop(name) for name in ("action of another", "kind of another")}
    assert not below(mixed, 0.8)
    assert not below(found["wrong"], 0.93)
