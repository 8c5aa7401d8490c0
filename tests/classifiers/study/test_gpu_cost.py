"""Hours of a GPU that a study's plan tells: of its trainings, and of what it builds."""

import pytest

from builder.planning.device_cost import Device
from classifiers.study.cost import Cost
from classifiers.study.gpu_cost import gpu_costs
from classifiers.study.releases import Missing
from generation.networks.gpus import GPUS

DEVICE = Device.named("a100-80", 0.5)


def test_hours_follow_from_counted_work():
    trained = Cost("resnet50 at 224 px", 3, 1000, 3.12e17, None, "half")
    single = Cost("resnet50 at 224 px", 3, 1000, 3.12e17, None)
    missing = [
        Missing("real", "data/imagenet", 0, None),  # imported: no network
        Missing("by hand", None, 0, 10),
        Missing("made", "imagenet-dit-256", 2, 10),
        Missing("embedded", "fashion-mnist", 0, 10),
    ]
    half, slow, made, embedded = gpu_costs([trained, single], missing, 1000, DEVICE)
    assert half.flops == 6.24e17
    assert half.hours == pytest.approx(6.24e17 / (312e12 * 0.5) / 3600)
    peaks = GPUS["a100-80"]
    assert slow.hours == pytest.approx(half.hours * peaks.half / peaks.single)
    assert half.hardware == made.hardware == "one NVIDIA A100 80 GB at 50% of its peak"
    assert made.what == "8,000 images of imagenet-dit-256"
    assert made.flops is not None
    assert made.hours is not None
    # decoding is in float32, which is slower
    assert made.hours > made.flops / (312e12 * 0.5) / 3600
    assert (embedded.flops, embedded.hours) == (None, None)
    assert "10,000 images of fashion-mnist: not counted" in embedded.as_line()
    assert not half.as_line().endswith("far longer")
    tiny = Cost("small ResNet at 32 px", 3, 1000, 1e12, None)
    (short,) = gpu_costs([tiny], [], 10, DEVICE)
    assert short.as_line().endswith("at 50% of its peak; small networks take far longer")
