"""Where networks run; the compiler itself takes longer than all these tests, so it is not run."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch._inductor import config as inductor_config

from generation.networks.placement import Placement
from tests.models.tiny_network import tiny_network


@pytest.fixture(autouse=True)
def compiler_not_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(nn.Module, "compile", lambda _, **__: None)
    with inductor_config.patch(freezing=False):
        yield


def test_what_is_compiled_for_a_cpu_computes_the_same() -> None:
    """Linear layers become convolutions: of tokens, of one vector an image, without a bias."""
    network = tiny_network()
    linear = [name for name, part in network.named_modules() if type(part) is nn.Linear]
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    x, t, prompt = torch.randn(3, 1, 8, 8), torch.tensor([0, 50, 99]), torch.tensor([0, 1, 2])
    expected = network(x, t, prompt)
    placed = Placement("cpu", torch.float32, compile=True).place(network)
    torch.testing.assert_close(placed(x, t, prompt), expected, atol=1e-6, rtol=1e-5)
    assert linear
    assert not any(type(part) is nn.Linear for part in placed.modules())
    assert all(torch.equal(placed.state_dict()[name], value) for name, value in weights.items())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5), (2, 3, 4, 5)])
def test_a_linear_layer_takes_any_leading_shape(bias: bool, shape: tuple[int, ...]) -> None:
    layer, x = nn.Linear(5, 7, bias=bias), torch.randn(shape)
    expected = layer(x)
    placed = Placement("cpu", torch.float32, compile=True).place(layer)
    torch.testing.assert_close(placed(x), expected, atol=1e-6, rtol=1e-5)


def test_what_is_not_compiled_stays_as_it_is() -> None:
    placed = Placement("cpu", torch.float32).place(nn.Linear(2, 2))
    assert type(placed) is nn.Linear
