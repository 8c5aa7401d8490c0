"""What results record of the machine; what builds must agree in."""

from dataclasses import asdict

import torch

from release.environment import own_environment
from release.results.result import environment


def test_results_say_which_vector_instructions_the_cpu_has() -> None:
    assert environment()["cpu_capability"] == torch.backends.cpu.get_cpu_capability()


def test_builds_need_not_agree_in_more_than_before() -> None:
    assert set(asdict(own_environment())) == {"device", "versions"}
