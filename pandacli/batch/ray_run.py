"""A run on Ray Data: the shares of an index go to workers, each with a model of its own.

The answers come back here and are written here, as those of a run on one machine are.
"""

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from threading import Event
from typing import Any

from pandacli import checkpoints
from pandacli.batch.clip_worker import Done, Settings, failures
from pandacli.batch.counters import Counters, Outcome
from pandacli.batch.ray_board import Board, feed
from pandacli.batch.ray_cluster import Placement, joined, place
from pandacli.batch.ray_feeder import Feeder
from pandacli.batch.ray_worker import RayWorker, Result, Task
from pandacli.batch.record_index import Index
from pandacli.batch.runner import Answers, record_outcome
from pandacli.batch.shares import shares, shares_of
from pandacli.batch.videos import VideoFolder
from pandacli.errors import DeviceError, PandaError, UsageError

_AHEAD = 4  # shares out for each worker: one is answered, one is read, and two are on their way
_AT_A_TIME = 2  # shares that a worker has


class RayRun:
    """Answers what is open in an index, on Ray; used as a `Runner` is.

    Args:
        index: What is to be answered.
        settings: How it is asked.
        videos: The folder of the videos, which all machines must have.
        answers: Where the answers go.
        canvas_side: The side in pixels of the square that the model sees.
        fail_fast: Stop at the first failure.
        address: The cluster: "auto", a host, or host:port; None starts a Ray on this machine.
        workers: How many models, at most; None for one on each card, or else on each machine.
        weights: The identity of the model; a worker that has another one is an error.

    Attributes:
        counters: How far it is; the seconds are those of all workers together.
        stopped: Once set, no question is begun any more; those under way are answered.
        failed_fast: Whether it was a failure that stopped it.
    """

    def __init__(
        self,
        index: Index,
        settings: Settings,
        videos: VideoFolder,
        answers: Answers,
        *,
        canvas_side: int,
        fail_fast: bool = False,
        address: str | None = None,
        workers: int | None = None,
        weights: str | None = None,
    ) -> None:
        self._index, self._settings, self._videos = index, settings, videos
        self._answers, self._side, self._fail_fast = answers, canvas_side, fail_fast
        self._address, self._workers, self._weights = address, workers, weights
        self._feeder: Feeder | None = None
        self._parts_left: dict[int, int] = {}  # of the clips of which some shares are done
        self.stopped = Event()
        self.failed_fast = False
        self._ran = ""
        self.counters = Counters(records=index.total, earlier=index.earlier, clips=index.clips)

    @property
    def in_flight(self) -> int:
        """How many questions are in the shares that are being answered, a moment ago."""
        if self._feeder is None:
            return 0
        out = [self._feeder.out.get(number) for number in self._feeder.under_way]
        return sum(len(share.questions) for share in out if share)

    def outcomes(
        self,
        load: object = None,  # noqa: ARG002  (a Runner wants it)
        say: Callable[[str], None] = lambda _: None,
    ) -> Iterator[Outcome]:
        """What becomes of each record, once it is on the disk.

        Args:
            load: As of `Runner`, and not called: the workers load the model.
            say: Told, in a few words, what is waited for.

        Raises:
            PandaError: Ray is not there, the model cannot be loaded somewhere, or the answers
                cannot be written.
        """
        yield from self._write(failures(self._index.bad_lines(), PandaError("")))
        if self.stopped.is_set() or not self._index.clips:
            return
        say(f"joining Ray at {self._address}" if self._address else "starting Ray")
        with joined(self._address) as ray:
            placement = place(ray.nodes(), self._settings.device, self._workers)
            placement = replace(placement, workers=self._busy(placement.workers))
            say(f"loading {self._settings.model} on {placement.workers} workers")
            for number, result in self._results(ray, placement):
                say("answering")
                if result.error is not None:
                    raise result.error
                self._refuse_mixture(result)
                yield from self._settle(number, result)
                if self.failed_fast:
                    return

    def _busy(self, workers: int) -> int:
        """So many of the workers as there is something to do for."""
        found = 0
        for group in self._index.groups():
            found += shares_of(group)
            if found >= workers:
                return workers
        return found

    def _results(self, ray: Any, placement: Placement) -> Iterator[tuple[int, Result]]:
        actor = ray.remote(num_cpus=0, max_concurrency=10_000, scheduling_strategy=_here(ray))
        board = actor(Board).remote()
        ahead = _AHEAD * placement.workers
        self._feeder = feeder = Feeder(ray, board, shares(self._index), self.stopped, ahead)
        feeder.start()
        try:
            rows = self._data_set(ray, placement, board)
            for row in rows.iter_batches(batch_size=None, prefetch_batches=0):
                for number, result in zip(row["number"], row["result"], strict=True):
                    yield int(number), pickle.loads(result)
                    board.settle.remote(int(number))
        except ray.exceptions.RayError as error:
            raise DeviceError(
                f"Ray has given up: {type(error).__name__}", "give the same command again to go on"
            ) from error
        finally:
            feeder.end()
            ray.kill(board)
        if feeder.error is not None:
            raise feeder.error

    def _data_set(self, ray: Any, placement: Placement, board: Any) -> Any:
        """The rows with the results, in any order; nothing is done before they are asked for."""
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.target_max_block_size = 1  # a row is a block: it goes where there is room, at once
        workers = ray.data.ActorPoolStrategy(
            size=placement.workers,
            max_tasks_in_flight_per_actor=_AT_A_TIME,
            max_concurrent_calls_per_actor=_AT_A_TIME,
            enable_true_multi_threading=True,
        )
        with ray.data.DataContext.current(context):
            once = ray.data.from_items([0])
            fed = once.map_batches(feed, fn_kwargs={"board": board}, num_cpus=0)
            return fed.map_batches(
                RayWorker,
                batch_size=1,
                fn_constructor_args=(self._task(placement), board),
                compute=workers,
                num_cpus=placement.cpus,
                num_gpus=placement.gpus,
            )

    def _task(self, placement: Placement) -> Task:
        settings = self._settings
        model = checkpoints.resolve(settings.model)
        where = str(model.folder.absolute()) if model.kind == "folder" else settings.model
        return Task(
            settings=replace(settings, model=where, device=placement.device),
            name=model.name,
            weights=self._weights,
            videos=self._videos.folder.absolute(),
            canvas_side=self._side,
            threads=placement.threads,
        )

    def _refuse_mixture(self, result: Result) -> None:
        """Raise an error where workers run the model in different ways.

        The digests of the answers could not tell these apart.
        """
        self._ran = self._ran or result.ran
        if result.ran and result.ran != self._ran:
            raise UsageError(
                f"workers run the model in different ways: {self._ran}, and {result.ran}",
                "give the same --quant to all, or leave machines out with --device or --workers",
            )

    def _settle(self, number: int, result: Result) -> Iterator[Outcome]:
        """Write what has come back; a share that has come before is nothing new."""
        assert self._feeder is not None
        share = self._feeder.out.pop(number, None)
        if share is None:
            return
        self._feeder.room.release()
        for stage, seconds in result.seconds.items():
            self.counters.spend(stage, seconds)
        yield from self._write((share.questions[place], line) for place, line in result.lines)
        if len(result.lines) < len(share.questions):  # it was stopped
            return
        left = self._parts_left.pop(share.clip, share.parts) - 1
        if left:
            self._parts_left[share.clip] = left
        else:
            self.counters.clips_done += 1

    def _write(self, done: Iterable[Done]) -> Iterator[Outcome]:
        for question, line in done:
            yield record_outcome(question, line, self._answers, self.counters)
            if self._fail_fast and "error" in line:
                self.failed_fast = True
                self.stopped.set()
                return


def _here(ray: Any) -> Any:
    """The strategy that puts an actor on this machine."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return NodeAffinitySchedulingStrategy(node, soft=False)
