"""How the workers are placed on the machines of a cluster, and clusters that are none."""

import sys
from typing import Any

import pytest

from pandacli.batch.ray_cluster import Placement, joined, place
from pandacli.errors import DeviceError, UsageError


def node(cores: float, cards: float = 0, *, alive: bool = True) -> dict[str, Any]:
    resources = {"CPU": cores, "GPU": cards} if cards else {"CPU": cores}
    return {"Alive": alive, "Resources": resources}


def test_a_card_has_one_worker() -> None:
    placement = place([node(16, 4), node(16, 4)], "auto", None)
    assert placement == Placement(workers=8, device="cuda", cpus=0, gpus=1, threads=4)


def test_fewer_workers_leave_cards_alone() -> None:
    assert place([node(16, 4)], "cuda", 2).workers == 2


def test_a_cluster_without_cards_computes_on_its_processors() -> None:
    assert place([node(8)], "auto", None).device == "cpu"


def test_cards_are_left_alone_where_the_processor_is_wanted() -> None:
    placement = place([node(8, 2)], "cpu", None)
    assert (placement.device, placement.gpus) == ("cpu", 0)


def test_each_machine_without_cards_has_one_worker() -> None:
    placement = place([node(8), node(8)], "cpu", None)
    assert (placement.workers, placement.cpus, placement.threads) == (2, 8, 8)


def test_workers_share_the_cores_of_a_machine() -> None:
    placement = place([node(9)], "cpu", 2)
    assert (placement.cpus, placement.threads) == (4, 4)


def test_workers_fit_on_machines_of_different_sizes() -> None:
    placement = place([node(8), node(4)], "cpu", 2)
    assert (placement.workers, placement.cpus) == (2, 4)


def test_more_workers_than_cores_fit_all_the_same() -> None:
    placement = place([node(2)], "cpu", 5)
    assert placement.workers * placement.cpus < 2


def test_a_machine_that_is_gone_has_no_room() -> None:
    assert place([node(8), node(8, alive=False)], "cpu", None).workers == 1


def test_a_worker_has_a_card_for_itself() -> None:
    with pytest.raises(DeviceError) as caught:
        place([node(16, 2)], "auto", 3)
    assert caught.value.hint == "use --workers 2"


def test_cuda_is_not_there_without_cards() -> None:
    with pytest.raises(DeviceError, match="has no GPU"):
        place([node(8)], "cuda", None)


def test_which_card_is_for_ray_to_say() -> None:
    with pytest.raises(UsageError, match="cuda:1 does not go with Ray"):
        place([node(8, 2)], "cuda:1", None)


def test_a_missing_ray_is_told_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError) as caught, joined(None):
        pass
    assert caught.value.hint == "install it with: pip install 'pandacli[ray]'"


def test_a_cluster_that_does_not_answer_is_told() -> None:
    pytest.importorskip("ray.data")
    with (
        pytest.raises(DeviceError, match=r"no Ray cluster at 127\.0\.0\.1:1: "),
        joined("127.0.0.1:1"),
    ):
        pass


def test_a_machine_without_ray_has_nothing_to_join() -> None:
    pytest.importorskip("ray.data")
    with pytest.raises(DeviceError, match="no Ray cluster runs here"), joined("auto"):
        pass
