"""How far a run is: what there is to do, what is done, and where the time went."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Counters:
    """The counts of one run, which grow while it goes on.

    Attributes:
        records: Questions in the file, bad lines included.
        earlier: Of these, those that an earlier run has answered.
        answered: Answered in this run.
        failed: Failed in this run, bad lines included.
        clips: Clips that this run has questions about.
        clips_done: Of these, those that have been dealt with.
        tokens: Tokens of the answers of this run.
        seconds: What each stage took, by its name, in the order of the work; frames are read
            ahead in other processes, so "frames" is only what was waited for them.
    """

    records: int = 0
    earlier: int = 0
    answered: int = 0
    failed: int = 0
    clips: int = 0
    clips_done: int = 0
    tokens: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """Questions that are still open."""
        return self.records - self.earlier - self.answered - self.failed

    def spend(self, stage: str, seconds: float) -> None:
        """Count what a stage took."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


@dataclass(frozen=True)
class Outcome:
    """What has become of one record, once it is on the disk.

    Attributes:
        line: Where the record stands in its file, from 1.
        video: The file it asks about, as written; "" where the line is no record.
        question: What it asks; "" where the line is no record.
        answer: The answer; None where there is none.
        error: What went wrong; None where there is an answer.
        written: The line of the answers file, as a JSON object.
    """

    line: int
    video: str
    question: str
    answer: str | None
    error: str | None
    written: dict[str, Any]
