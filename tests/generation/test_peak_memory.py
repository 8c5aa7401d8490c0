"""What forward passes hold at once, on the meta device, against counts by hand."""

import torch
from torch import nn
from torch.nn import functional as F

from generation.networks.flops import counted_flops
from generation.networks.peak_memory import Peak, noted_peaks


def test_a_peak_is_what_is_alive_at_once() -> None:
    with torch.device("meta"):
        network, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)), torch.zeros(1, 4)
    weights = 4 * (4 * 8 + 8 + 8 * 4 + 4) + 16
    with noted_peaks() as peaks:
        flops = counted_flops(lambda: network(x))
        counted_flops(lambda: network(x), decoding=True)
    # the hidden layer before and after ReLU; then the latter and the output
    assert peaks == [Peak(weights, 64), Peak(weights, 64, decoding=True)]
    assert flops == counted_flops(lambda: network(x)) == 2 * (32 + 32)


def test_attention_keeps_no_matrix_of_weights() -> None:
    with torch.device("meta"):
        q = torch.zeros(1, 2, 4096, 32)
    with noted_peaks() as peaks:
        flops = counted_flops(lambda: F.scaled_dot_product_attention(q, q, q))
    assert flops == 2 * 2 * 2 * 4096**2 * 32
    assert peaks[0].activations < 4 * 4096**2
