"""8-bit linear layers: how far they are from the weights they stand for."""

import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from torch import Tensor, nn

from pandacli.quantization import int8
from pandacli.quantization.int8 import (
    Int8Linear,
    pack_in_background,
    quantize_rows,
    residual_for_all,
    widen_4bit,
)

WIDTH, ROWS = 512, 256

needs_exact_product = pytest.mark.skipif(
    not int8.has_exact_product(), reason="this CPU has no exact product"
)


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0)) / WIDTH**0.5


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["this CPU", "packed", "63 steps"])
def _every_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on this CPU, on one without an exact product, and on one that adds in 16 bits."""
    if request.param != "this CPU":
        monkeypatch.setattr(int8, "has_exact_product", lambda: False)
    if request.param == "63 steps":
        monkeypatch.setattr(int8, "input_steps", lambda: 63)


def error(weight: Tensor, inputs: Tensor) -> float:
    """The relative error of the worst token."""
    given, wanted = Int8Linear(*quantize_rows(weight))(inputs), inputs @ weight.T
    return float(((given - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max())


def test_row_rounding_error_is_half_a_step(weight: Tensor) -> None:
    rows, scale = quantize_rows(weight)
    assert ((rows * scale[:, None] - weight).abs() <= scale[:, None] * 0.501).all()
    assert rows.abs().amax(1).eq(127).all()


def test_zero_row_stays_zero() -> None:
    rows, scale = quantize_rows(torch.zeros(2, 8))
    assert not rows.any()
    assert scale.isfinite().all()


@pytest.mark.usefixtures("_every_cpu")
def test_many_tokens_error_below_two_percent(weight: Tensor) -> None:
    assert 0.01 < error(weight, tokens(3, 70)) < 0.03


@pytest.mark.usefixtures("_every_cpu")
def test_few_tokens_have_no_activation_error(weight: Tensor) -> None:
    rows, scale = quantize_rows(weight)
    inputs = tokens(7)
    given, wanted = Int8Linear(rows, scale)(inputs), inputs @ (rows * scale[:, None]).T
    assert float((given - wanted).norm() / wanted.norm()) < 1e-3


@pytest.mark.usefixtures("_every_cpu")
def test_token_result_is_independent_of_batch(weight: Tensor) -> None:
    layer, inputs = Int8Linear(*quantize_rows(weight)), tokens(200)
    with residual_for_all():
        among, alone = layer(inputs), torch.cat([layer(token[None]) for token in inputs])
    assert float((among - alone).norm() / alone.norm()) < 1e-5
    assert float((layer(inputs) - alone).norm() / alone.norm()) > 1e-3


@pytest.mark.usefixtures("_every_cpu")
def test_largest_values_do_not_saturate() -> None:
    ones = torch.ones(64, 1024)
    given = Int8Linear(*quantize_rows(ones))(torch.cat((ones[:2], -ones)))
    assert torch.allclose(given[0], torch.tensor(1024.0), rtol=1e-3)
    assert torch.allclose(given[-1], torch.tensor(-1024.0), rtol=1e-3)


@pytest.mark.usefixtures("_every_cpu")
def test_each_token_has_its_own_scale(weight: Tensor) -> None:
    sizes = torch.tensor([1e-4, 1.0, 1e4])[:, None]
    assert error(weight, tokens(3) * sizes) < 0.02


@pytest.mark.usefixtures("_every_cpu")
def test_outlier_channel_keeps_precision_of_others(weight: Tensor) -> None:
    inputs = tokens(4)
    inputs[1:, 5] = 1000
    calm = inputs.clone()
    calm[:, 5] = 0
    layer = Int8Linear(*quantize_rows(weight))
    rest = layer(inputs) - layer(inputs - calm)
    wanted = calm @ weight.T
    assert float((rest - wanted).norm() / wanted.norm()) < 0.04


@pytest.mark.usefixtures("_every_cpu")
def test_empty_input_gives_empty_output(weight: Tensor) -> None:
    assert not Int8Linear(*quantize_rows(weight))(torch.zeros(1, 2, WIDTH)).any()


@pytest.mark.usefixtures("_every_cpu")
def test_output_shape_equals_linear(weight: Tensor) -> None:
    layer = Int8Linear(*quantize_rows(weight))
    assert layer(tokens(2, 3)).shape == (2, 3, ROWS)
    assert repr(layer) == f"Int8Linear(in_features={WIDTH}, out_features={ROWS})"


@needs_exact_product
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 30, 100])
def test_stored_weights_give_what_packed_ones_give(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "_CACHED_BYTES", 50 * WIDTH)
    weight = torch.randint(-127, 128, (ROWS, WIDTH), dtype=torch.int8)
    scale, inputs = torch.rand(ROWS), tokens(count)
    stored = Int8Linear(weight, scale)(inputs)
    monkeypatch.setattr(int8, "has_exact_product", lambda: False)
    assert torch.equal(Int8Linear(weight, scale)(inputs), stored)


@needs_exact_product
@pytest.mark.parametrize("room", [3, 2])
def test_layers_are_packed_in_the_background_while_there_is_room(room: int) -> None:
    weights = [torch.randint(-127, 128, (ROWS, WIDTH), dtype=torch.int8) for _ in range(3)]
    model = nn.Sequential(*(Int8Linear(weight, torch.rand(ROWS)) for weight in weights))
    few, many = tokens(5), tokens(80)
    before = [layer(inputs) for layer in model for inputs in (few, many)]
    asked: list[int] = []

    def has_room(size: int) -> bool:
        asked.append(size)
        return len(asked) <= room

    pack_in_background(model, has_room)
    for thread in [each for each in threading.enumerate() if each.name == "panda packing"]:
        thread.join()
    assert asked == [ROWS * WIDTH] * 3
    after = [layer(inputs) for layer in model for inputs in (few, many)]
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old, new)
    kinds = [type(layer._weight).__name__ for layer in model]
    assert kinds == ["_PackedWeight"] * room + ["_StoredWeight"] * (3 - room)


@needs_exact_product
def test_stored_weights_are_not_copied() -> None:
    weight = torch.randint(-127, 128, (ROWS, WIDTH), dtype=torch.int8)
    layer = Int8Linear(weight, torch.ones(ROWS))
    inputs = torch.zeros(1, WIDTH)
    inputs[0, 3] = 1
    weight[7, 3] = 11
    assert layer(inputs)[0, 7] == pytest.approx(11)


def test_cpu_without_avx512_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not int8.has_exact_product.__wrapped__()


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("shape", [(9, 4096), (70, 192), (33, 1000), (7, 88), (5, 30), (3, 128)])
def test_widened_4bit_weight_is_half_a_step_off(shape: tuple[int, int], nested: bool) -> None:
    weight = torch.randn(shape) * torch.rand(shape[0], 1)
    weight[0] = 0
    packed, state = quantize_4bit(
        weight, blocksize=64, compress_statistics=nested, quant_type="nf4"
    )
    rows, scale = widen_4bit(packed, state.as_dict(packed=True))
    wanted = dequantize_4bit(packed, state)
    assert ((rows * scale[:, None] - wanted).abs() <= scale[:, None] * 0.501 + 1e-12).all()
    assert rows.abs().amax() == 127
    assert (rows.dtype, scale.dtype) == (torch.int8, torch.float32)


def test_packing_in_threads_warns_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "has_exact_product", lambda: False)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    torch.set_warn_always(True)  # otherwise only the first layer of a process warns
    try:
        with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
            warnings.simplefilter("error")
            weight = torch.randint(-127, 128, (8, 16), dtype=torch.int8)
            layers = [pool.submit(Int8Linear, weight, torch.ones(8)) for _ in range(400)]
            assert all(layer.result() for layer in layers)
    finally:
        torch.set_warn_always(False)
        sys.setswitchinterval(interval)
