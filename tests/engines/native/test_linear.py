"""Linear layers: equal to torch's own product, however the matrix is stored."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional as F

from rankd.engines.native import linear
from rankd.engines.native.linear import Linear

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(params=["as this torch can", "without the operators"])
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both ways to keep a matrix."""
    if request.param == "without the operators":
        monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", None)
    linear._can_pack.cache_clear()
    yield
    linear._can_pack.cache_clear()


@pytest.mark.usefixtures("storage")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [0, 1, 7, 300])
def test_a_linear_layer_is_rows_times_the_matrix(count: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(count)
    weight = torch.randn(96, 64, generator=generator).to(dtype)
    rows = torch.randn(count, 64, generator=generator).to(dtype)
    expected = F.linear(rows.double(), weight.double())
    product = Linear(weight)(rows)
    assert (product.dtype, product.shape) == (dtype, expected.shape)
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(product.double(), expected, atol=1e-4, rtol=rounding)


@pytest.mark.usefixtures("storage")
def test_rows_may_be_a_view() -> None:
    weight, wide = torch.randn(32, 16), torch.randn(5, 48)
    view = wide[:, 16:32]
    torch.testing.assert_close(Linear(weight)(view), F.linear(view, weight))


def test_matrices_are_packed_in_bfloat16_only() -> None:
    """On the processors that the tests run on; a torch that cannot is slower, not wrong."""
    assert linear._can_pack(torch.bfloat16) == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert not linear._can_pack(torch.float32)
    assert not linear._can_pack(torch.float16)
