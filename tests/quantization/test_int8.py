"""8-bit linear layers: how far they are from the weights they stand for."""

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from pandacli.quantization import int8
from pandacli.quantization.int8 import Int8Linear, quantize_rows, residual_for_all

WIDTH, ROWS = 512, 256


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0)) / WIDTH**0.5


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=["own steps", "63 steps"])
def _every_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on this CPU, and as on one that adds in 16 bits."""
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


def test_largest_values_do_not_saturate() -> None:
    ones = torch.ones(64, 1024)
    given = Int8Linear(*quantize_rows(ones))(torch.cat((ones[:2], -ones)))
    assert torch.allclose(given[0], torch.tensor(1024.0), rtol=1e-3)
    assert torch.allclose(given[-1], torch.tensor(-1024.0), rtol=1e-3)


def test_each_token_has_its_own_scale(weight: Tensor) -> None:
    sizes = torch.tensor([1e-4, 1.0, 1e4])[:, None]
    assert error(weight, tokens(3) * sizes) < 0.02


def test_outlier_channel_keeps_precision_of_others(weight: Tensor) -> None:
    inputs = tokens(4)
    inputs[1:, 5] = 1000
    calm = inputs.clone()
    calm[:, 5] = 0
    layer = Int8Linear(*quantize_rows(weight))
    rest = layer(inputs) - layer(inputs - calm)
    wanted = calm @ weight.T
    assert float((rest - wanted).norm() / wanted.norm()) < 0.03


def test_empty_input_gives_empty_output(weight: Tensor) -> None:
    assert not Int8Linear(*quantize_rows(weight))(torch.zeros(1, 2, WIDTH)).any()


def test_output_shape_equals_linear(weight: Tensor) -> None:
    layer = Int8Linear(*quantize_rows(weight))
    assert layer(tokens(2, 3)).shape == (2, 3, ROWS)
    assert repr(layer) == f"Int8Linear(in_features={WIDTH}, out_features={ROWS})"


def test_packing_in_threads_warns_of_nothing() -> None:
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
