"""Where networks run; the compiler itself takes longer than all these tests, so it is not run."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

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


def test_small_networks_run_as_cuda_graphs_whose_outputs_are_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stand-in for the compiler writes every output to one place, as a CUDA graph does."""
    modes: list[str | None] = []
    place, told = torch.zeros(2, 3), torch.zeros(2)

    def compiled(network: nn.Module, mode: str | None = None, **_: object) -> None:
        modes.append(mode)

        def replay(x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor | None]]:
            threads.add(threading.current_thread().name)
            assert torch.is_inference_mode_enabled() == x.is_inference()
            place.copy_(network.forward(x))
            return place, {"told": told, "none": None}

        network._compiled_call_impl = replay

    monkeypatch.setattr(nn.Module, "compile", compiled)
    begun: list[int] = []
    threads: set[str] = set()
    mark = "cudagraph_mark_step_begin"  # tells that a graph's outputs may be overwritten
    monkeypatch.setattr(torch.compiler, mark, lambda: begun.append(1))
    layer = nn.Linear(5, 3)
    placed = Placement("meta", torch.float32, compile=True)
    monkeypatch.setattr(nn.Module, "to", lambda self, *_, **__: self)  # there is no such device
    placed.arrange(layer)
    with torch.no_grad():
        x, y = torch.randn(2, 5), torch.randn(2, 5)
        first, others = layer(x)
        layer(y)
        torch.testing.assert_close(first, layer.forward(x))
        with ThreadPoolExecutor(1) as other:
            made, _ = other.submit(layer, torch.zeros(2, 5)).result()
        torch.testing.assert_close(made, layer.bias.expand(2, -1))
        with torch.inference_mode():
            layer(torch.zeros(2, 5))
    assert len(begun) == 4
    assert threads == {"replay_0"}  # a graph belongs to the thread that recorded it
    assert others["told"] is not told
    assert others["none"] is None
    monkeypatch.setattr("generation.networks.placement.REPLAYED", 18)
    placed.arrange(layer)
    assert modes == ["reduce-overhead", None]


def test_a_network_that_runs_beside_others_is_no_cuda_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    modes: list[str | None] = []

    def noted(network: nn.Module, *, dynamic: bool, mode: str | None = None) -> None:
        assert not dynamic
        modes.append(mode)
        network._compiled_call_impl = lambda x: x

    monkeypatch.setattr(nn.Module, "compile", noted)
    on_gpu = Placement("cuda", torch.float32, compile=True)
    on_gpu.arrange(nn.Linear(2, 2))
    on_gpu.arrange(nn.Linear(2, 2), replayed=False)
    assert modes == ["reduce-overhead", None]
