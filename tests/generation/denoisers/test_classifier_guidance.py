"""ADM-G: the classifier of noisy images, its gradient, its training, and what a build records."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from builder.builds.build import build_release, plan_build
from builder.builds.run import RunSettings
from builder.planning.recipe import load_recipe
from generation.denoisers.source import DenoiserGenerator
from generation.diffusion.noise import image_noise
from generation.diffusion.sampler import LEAST_GUIDED, sample
from generation.diffusion.sampler_config import ClassifierGuidance, SamplerConfig
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from generation.families import generator_source, trainable
from generation.families.noisy_classifier.files import levels_problem
from generation.families.noisy_classifier.guidance import class_gradient, entropy_gradient
from generation.families.pixel_unet.checkpoint import save_checkpoint
from generation.families.pixel_unet.generator import PixelUNetGenerator
from generation.finetune_generator import finetune_generator
from generation.generator import ImageBatch
from release.classes.class_list import load_classes
from release.errors import UserError
from tests.generation.denoisers.unet_reference import Paper, swish
from tests.in_process import InProcess
from tests.models.tiny_denoisers import PROMPTS, save_denoiser, tiny_denoiser
from tests.models.tiny_network import tiny_conditioned, tiny_network
from tests.models.tiny_noisy_classifier import save_tiny, tiny_classifier, tiny_recipe
from tests.recipe_text import as_toml, tiny_build
from tests.sets.painter import paint
from tests.sets.small_releases import CLASSES, write_release

ABAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 100))


def logits_of_the_paper(network: Any, x: Tensor, step: Tensor) -> Tensor:
    """16 and 8 px, a block each, of 8 and 16 channels; attention at 8 px in heads of 8."""
    p = Paper(network)
    rates = torch.tensor([10000 ** (-i / 3) for i in range(4)], dtype=x.dtype)
    angles = step[:, None] * rates
    h = swish(p.linear("embedding.first", torch.cat([angles.sin(), angles.cos()], 1)))
    h = p.linear("embedding.second", h)
    y = p.residual("body.layers.0.residual", p.conv("body.enter", x), h)
    y = p.residual("body.layers.1.layer", y, h, side=-1)
    y = p.residual("body.layers.2.residual", y, h)
    y = p.attention("body.layers.2.attention", y, heads=2)
    y = p.attention("body.attention", p.residual("body.middle.0", y, h), heads=2)
    y = swish(p.norm("body.norm", p.residual("body.middle.1", y, h)))
    tokens = y.flatten(2).mT
    tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + p.weights["pool.places"]
    return p.heads("pool", tokens, heads=2)[:, 0]


def asked_of(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, 3, 16, 16, generator=generator, dtype=torch.float64).to(dtype)
    steps = torch.tensor([0, 40, 99])
    schedule = NoiseSchedule(ScheduleConfig(name="cosine", num_steps=100))
    log_snr = torch.from_numpy(schedule.log_snr)[steps].float()
    return x, steps, log_snr, torch.tensor([0, 1, 2])


def test_a_classifier_says_what_the_paper_says() -> None:
    network = tiny_classifier()
    x, steps, log_snr, labels = asked_of(torch.float32)
    said, carried = network(x, log_snr, labels)
    assert carried is None
    expected = logits_of_the_paper(network, x, steps)
    assert said.shape == (3, 3)
    assert said.std() > 0.05
    assert (said - expected).abs().max() <= 1e-5 * max(1, expected.abs().max())


def test_the_gradient_is_that_of_the_class_s_log_probability_in_float64() -> None:
    network = tiny_classifier()
    x, steps, log_snr, labels = asked_of(torch.float32)
    with torch.inference_mode():  # as a sampler calls it
        found = class_gradient(network, x, log_snr, labels)
    double = tiny_classifier().double()
    wide = asked_of(torch.float64)[0].requires_grad_(True)
    logits = logits_of_the_paper(double, wide, steps)
    chosen = logits.log_softmax(1)[torch.arange(3), labels].sum()
    (expected,) = torch.autograd.grad(chosen, wide)
    assert expected.abs().max() > 1e-3
    assert (found - expected).abs().max() <= 1e-5 * max(1, float(expected.abs().max()))


def test_the_gradient_of_the_entropy_is_its_formula_in_float64() -> None:
    """dH/dx = - sum over k of p_k (log p_k + H) dz_k/dx, z the logits."""
    network = tiny_classifier()
    x, steps, log_snr, _ = asked_of(torch.float32)
    with torch.inference_mode():
        found = entropy_gradient(network, x, log_snr)
    wide = asked_of(torch.float64)[0].requires_grad_(True)
    logits = logits_of_the_paper(tiny_classifier().double(), wide, steps)
    log_p = logits.detach().log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1, keepdim=True)
    assert 0.1 < float(entropy.max()) < np.log(3)
    slope = -log_p.exp() * (log_p + entropy)
    (expected,) = torch.autograd.grad((slope * logits).sum(), wide)
    assert expected.abs().max() > 1e-4
    assert (found - expected).abs().max() <= 1e-5 * max(1, float(expected.abs().max()))


def test_a_step_along_the_entropy_s_gradient_makes_the_classifier_less_sure() -> None:
    network = tiny_classifier()
    x, _, log_snr, labels = asked_of(torch.float32)

    def entropy(images: Tensor) -> Tensor:
        p = network(images, log_snr, labels)[0].softmax(1).double().clamp(min=1e-12)
        return -(p * p.log()).sum(1)

    gradient = entropy_gradient(network, x, log_snr)
    small = 1e-2 / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert (entropy(x + small * gradient) > entropy(x)).all()


def test_the_default_s_settings_are_written_as_before_there_was_a_choice() -> None:
    default = ClassifierGuidance(checkpoint="x", scale=2.0)
    assert default.model_dump() == {"checkpoint": "x", "scale": 2.0}
    assert ClassifierGuidance(checkpoint="x", towards="class") == ClassifierGuidance(checkpoint="x")
    unsure = ClassifierGuidance(checkpoint="x", towards="entropy")
    assert unsure.model_dump() == {"checkpoint": "x", "scale": 1.0, "towards": "entropy"}
    with pytest.raises(ValueError, match="'class' or 'entropy'"):
        ClassifierGuidance.model_validate({"checkpoint": "x", "towards": "margin"})


def test_a_guide_moves_the_mean_of_ddpm_and_epsilon_of_ddim() -> None:
    """Algorithms 1 and 2 of the paper, one step each, in float64."""
    schedule = NoiseSchedule(ScheduleConfig(name="linear", num_steps=100))
    rng = np.random.default_rng(1)
    start, noise, eps, v, g = rng.standard_normal((5, 2, 3, 4, 4))
    draws = iter([start, noise])

    def run(method: str) -> np.ndarray:
        seen: list[Tensor] = []

        def denoise(x: Tensor, _: int) -> tuple[Tensor, Tensor | None]:
            seen.append(x)
            return torch.from_numpy(eps), torch.from_numpy(np.tanh(v))

        config: Any = {"method": method, "steps": 2, "threshold": "none"}
        sample(
            *(denoise, schedule, "epsilon", SamplerConfig(**config)),
            lambda: torch.from_numpy(next(draws)),
            guide=lambda _x, _t: torch.from_numpy(g),
        )
        return seen[1].numpy()

    now, later = ABAR[99], ABAR[0]
    x0 = (start - np.sqrt(1 - now) * eps) / np.sqrt(now)
    alpha = now / later
    mean = (np.sqrt(later) * (1 - alpha) * x0 + np.sqrt(alpha) * (1 - later) * start) / (1 - now)
    beta, share = 1 - alpha, (np.tanh(v) + 1) / 2
    low = beta * (1 - later) / (1 - now)
    variance = np.exp(share * np.log(beta) + (1 - share) * np.log(low))
    expected = mean + variance * g + np.sqrt(variance) * noise
    np.testing.assert_allclose(run("ddpm"), expected, rtol=1e-9, atol=1e-12)
    draws = iter([start])
    shifted = eps - np.sqrt(1 - now) * g
    x0 = (start - np.sqrt(1 - now) * shifted) / np.sqrt(now)
    expected = np.sqrt(later) * x0 + np.sqrt(1 - later) * shifted
    np.testing.assert_allclose(run("ddim"), expected, rtol=1e-9, atol=1e-9)


def test_images_follow_from_the_classifier_and_each_from_itself_alone(tmp_path: Path) -> None:
    generator = trainable("adm").family.sampler(tiny_denoiser("adm"))
    assert isinstance(generator, DenoiserGenerator)
    folder = str(save_tiny(tmp_path / "classifier"))
    settings = SamplerConfig(steps=3, classifier=ClassifierGuidance(checkpoint=folder, scale=20.0))
    rows = (["apple", "pear", "plum"], [0, 1, 2], [5, 6, 7])
    images: Any = generator.sample(ImageBatch(*rows, None, 16), settings)
    unguided: Any = generator.sample(ImageBatch(*rows, None, 16), SamplerConfig(steps=3))
    assert (images != unguided).any()
    order = [2, 0, 1]
    turned = ImageBatch(*([row[i] for i in order] for row in rows), None, 16)
    np.testing.assert_array_equal(generator.sample(turned, settings), images[order])
    other: Any = trainable("sr3").family.sampler(tiny_denoiser("sr3-base"))
    with pytest.raises(UserError, match="no classifier guides this checkpoint"):
        other.sample(ImageBatch(*rows, None, 16), settings)


@pytest.mark.parametrize("towards", ["class", "entropy"])
def test_a_pixel_stage_goes_where_the_classifier_leads(towards: Any, tmp_path: Path) -> None:
    """DDIM written out: x0 of eps - sqrt(1 - abar) * scale * gradient, the gradient by autograd."""
    network, tiny = tiny_conditioned("class", (*PROMPTS, "")), {"stage": {"resolution": 8}}
    folder, scale = save_tiny(tmp_path / "classifier", **tiny), 3.0
    guidance = ClassifierGuidance(checkpoint=str(folder), scale=scale, towards=towards)
    settings = SamplerConfig(method="ddim", steps=3, classifier=guidance)
    batch = ImageBatch(["plum", "apple"], [2, 0], [5, 6], None, 8)
    made: Any = PixelUNetGenerator(network).sample(batch, settings)
    classifier, labels = tiny_classifier(**tiny), torch.tensor([2, 0])
    schedule = NoiseSchedule(ScheduleConfig(num_steps=100))
    x = torch.from_numpy(next(image_noise([5, 6], (3, 8, 8))))
    table = schedule.alphas_cumprod
    for t, after in ((99, float(table[50])), (50, float(table[0])), (0, 1.0)):
        now = float(table[t])
        level = torch.full((2,), float(schedule.log_snr[t]))
        v = network(x, torch.full((2,), t), network.conditions(batch.prompts))
        noisy = x.clone().requires_grad_(True)
        p = classifier(noisy, level, labels)[0].softmax(1)
        wanted = p.log()[[0, 1], labels] if towards == "class" else -(p * p.log()).sum(1)
        (gradient,) = torch.autograd.grad(wanted.sum(), noisy)
        x0 = (now**0.5 * x - (1 - now) ** 0.5 * v).clamp(-1, 1)
        if now**0.5 >= LEAST_GUIDED:
            x0 = (x0 + (1 - now) / now**0.5 * scale * gradient).clamp(-1, 1)
        x = after**0.5 * x0 + (1 - after) ** 0.5 * (x - now**0.5 * x0) / (1 - now) ** 0.5
    expected = np.rint((x.permute(0, 2, 3, 1).numpy() + 1) * 127.5).clip(0, 255)
    assert np.abs(made.astype(int) - expected).max() <= 1
    unguided: Any = PixelUNetGenerator(network).sample(batch, SamplerConfig(method="ddim", steps=3))
    assert (made != unguided).any()
    turned = ImageBatch(["apple", "plum"], [0, 2], [6, 5], None, 8)
    again: Any = PixelUNetGenerator(network).sample(turned, settings)
    np.testing.assert_array_equal(again[::-1], made)


@pytest.mark.parametrize("method", ["ddim", "dpm-solver++"])
def test_a_classifier_s_error_in_noise_alone_changes_no_image(method: Any) -> None:
    """There x0 would move by 20,000 times a gradient."""
    schedule, config = NoiseSchedule(ScheduleConfig()), SamplerConfig(method=method, steps=16)
    start = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    error = 1e-3 * torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))

    def run(guide: Any) -> torch.Tensor:
        denoise = lambda x, _t: (0.9 * x, None)  # noqa: E731
        return sample(denoise, schedule, "epsilon", config, start.clone, guide=guide)

    last = schedule.num_steps - 1
    noisiest = run(lambda _x, t: error if t == last else torch.zeros(()))
    torch.testing.assert_close(noisiest, run(None), rtol=0, atol=0)
    assert not torch.equal(run(lambda _x, _t: error), run(None))


def test_no_classifier_leads_a_stage_of_residuals(tmp_path: Path) -> None:
    network = tiny_network(4, channels=3, residual=0.5)
    guidance = ClassifierGuidance(
        checkpoint=str(save_tiny(tmp_path / "classifier", stage={"resolution": 8}))
    )
    parents = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    batch = ImageBatch(["bag"], [0], [5], parents, 8)
    with pytest.raises(UserError, match="diffuses what an image adds to its parent"):
        PixelUNetGenerator(network).sample(batch, SamplerConfig(steps=2, classifier=guidance))
    save_checkpoint(network, tmp_path / "stage", torch.float16)
    problem = generator_source("pixel-unet").classifier_problem(tmp_path / "stage")  # type: ignore[attr-defined]
    assert problem is not None
    assert problem.startswith("diffuses what an image adds to its parent")


@pytest.mark.parametrize(
    ("own", "wanted", "words"),
    [
        ({"name": "linear"}, {"name": "cosine"}, None),  # both know all levels, by other steps
        ({"name": "cosine"}, {"name": "cosine", "num_steps": 4000}, None),
        # 100 steps of this one leave much of the image
        ({"name": "linear", "num_steps": 100}, {"name": "cosine"}, "no noise of share 1.00"),
        ({"name": "cosine", "num_steps": 10}, {"name": "cosine"}, "no noise of share 0."),
        ({"name": "cosine"}, {"name": "cosine", "input_scale": 0.5}, "at input_scale 1, its stage"),
    ],
)
def test_a_classifier_must_know_the_noise_levels_of_its_stage(
    own: dict[str, Any], wanted: dict[str, Any], words: str | None
) -> None:
    found = levels_problem(*map(ScheduleConfig.model_validate, (own, wanted)))
    assert (found is None) == (words is None)
    assert words is None or words in str(found)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with real/, classes.csv, classifier.toml, and runs/, a classifier and a network."""
    folder = tmp_path_factory.mktemp("guided")
    images = np.stack([paint(i % 4, i, 16, 10) for i in range(40)])
    write_release(folder / "real", {"train": [images]}, kind="real", dataset="shapes")
    lines = ["id,wnid,name,prompt", *(f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in CLASSES)]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    recipe = tiny_recipe(str(folder / "classes.csv"))
    (folder / "classifier.toml").write_text(as_toml(recipe))
    save_denoiser(folder / "network", "adm", tuple(c.prompt for c in CLASSES))
    return folder


def test_a_classifier_is_trained_by_the_command_and_a_build_records_its_hash(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    InProcess(monkeypatch)
    monkeypatch.chdir(tmp_path)
    recipe = str(place / "classifier.toml")
    data = str(place / "real")
    finetune_generator(recipe=recipe, data=data, out=Path("run"), as_json=True)
    assert Path("run/samples-000004.png").is_file()
    sampler = 'steps = 2, classifier = { checkpoint = "run/checkpoint", scale = 2.0 }'
    Path("build.toml").write_text(
        tiny_build(place / "classes.csv", "adm", place / "network", sampler)
    )
    loaded, classes = load_recipe("build.toml"), load_classes(str(place / "classes.csv"))

    def planned() -> Any:
        return plan_build(loaded, loaded.stages, classes, 1, tmp_path / "release", classes)

    plan = planned()
    manifest = build_release(plan, RunSettings(), lambda _: None).manifest
    assert manifest is not None
    told = manifest.origin["stages"][0]["sampler"]["classifier"]
    assert told["checkpoint"] == "run/checkpoint"
    assert len(told["sha256"]) == 64
    assert set(told) == {"checkpoint", "scale", "sha256"}
    assert manifest.origin["recipe"]["stage"][0]["sampler"]["classifier"] == told
    text = Path("build.toml").read_text()
    Path("unsure.toml").write_text(text.replace("scale = 2.0", 'scale = 2.0, towards = "entropy"'))
    unsure = load_recipe("unsure.toml")
    other = plan_build(unsure, unsure.stages, classes, 1, tmp_path / "unsure", classes)
    assert other.stages[0].recipe.sampler.model_dump()["classifier"]["towards"] == "entropy"
    assert other.stages[0].fingerprint != plan.stages[0].fingerprint
    Path("run").rename("moved")
    Path("build.toml").write_text(
        Path("build.toml").read_text().replace("run/check", "moved/check")
    )
    loaded = load_recipe("build.toml")
    assert planned().stages[0].fingerprint == plan.stages[0].fingerprint
    save_tiny(Path("moved/checkpoint"), tuple(c.prompt for c in CLASSES))
    with pytest.raises(UserError, match="whose stage 16 was made with other settings"):
        planned()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("generator", "is not guided; these are: adm, cdm, pixel-unet"),
        ("levels", "knows no noise of share 1.00, which its stage's schedule has: train one by"),
        ("size", "sees images of 32 px, its stage makes 16 px ones"),
        ("classes", "knows no class 'class 0'"),
        ("prompts", "knows no class 'a class 0'.*leave .prompts. out"),
        ("entropy", "prompt 'a class 0' is not among the 4 that checkpoint"),  # of the network
        ("hash", "has the wrong hash"),
        ("none", "is not a checkpoint of noisy-classifier"),
    ],
)
def test_a_classifier_that_does_not_fit_is_refused_when_a_build_is_planned(
    what: str, words: str, place: Path, tmp_path: Path
) -> None:
    prompts = PROMPTS if what == "classes" else tuple(c.prompt for c in CLASSES)
    stage: dict[str, Any] = {"resolution": 32} if what == "size" else {}
    if what == "levels":
        stage = {"schedule": {"name": "linear", "num_steps": 100}}
    folder = save_tiny(tmp_path / "classifier", prompts, stage=stage)
    if what == "none":
        (folder / "network.json").unlink()
    generator, network = "adm", place / "network"
    if what == "generator":
        generator, network = "sr3", save_denoiser(tmp_path / "sr3", "sr3-base")
    guidance = {"checkpoint": str(folder), **({"sha256": "0" * 64} if what == "hash" else {})}
    if what == "entropy":
        guidance["towards"] = "entropy"
    table = ", ".join(f"{name} = {json.dumps(value)}" for name, value in guidance.items())
    text = tiny_build(
        place / "classes.csv", generator, network, f"steps = 2, classifier = {{ {table} }}"
    )
    if what in ("prompts", "entropy"):
        text += '[prompts]\ntemplates = ["a {prompt}"]\n'
    (tmp_path / "build.toml").write_text(text)
    loaded, classes = (
        load_recipe(str(tmp_path / "build.toml")),
        load_classes(str(place / "classes.csv")),
    )
    with pytest.raises(UserError, match=words):
        plan_build(loaded, loaded.stages, classes, 1, tmp_path / "release", classes)


def test_a_sampler_of_no_denoising_network_takes_no_classifier() -> None:
    settings = {"method": "euler", "classifier": {"checkpoint": "x"}}
    with pytest.raises(ValueError, match="classifier goes with a method among"):
        SamplerConfig.model_validate(settings)
