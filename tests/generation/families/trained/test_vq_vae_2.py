"""VQ-VAE-2: codebook, networks and losses written anew, then autoencoder to release."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn import functional as F

from builder.builds.build import build_release, plan_build
from builder.builds.run import RunSettings
from builder.planning.recipe import load_recipe
from builder.release.verify import verify_release
from generation.diffusion.random_numbers import ImageRandom
from generation.diffusion.sampler_config import SamplerConfig
from generation.families import generator_source, load_training_recipe, trained_checkpoint
from generation.families.vq_vae_2 import hierarchy_trainable, prior_trainable
from generation.families.vq_vae_2.checkpoint import new_priors
from generation.families.vq_vae_2.codebook import Codebook
from generation.families.vq_vae_2.hierarchy import Hierarchy
from generation.families.vq_vae_2.objective import HierarchyObjective, PriorObjective
from generation.families.vq_vae_2.prior import Above, Prior, drawn
from generation.families.vq_vae_2.recipe import PriorShape
from generation.families.vq_vae_2.sampling import SETTINGS, CodeGenerator
from generation.finetune_generator import finetune_generator
from generation.generator import ImageBatch
from generation.training.data.images import DrawnImages
from generation.training.data.training_set import Wanted, open_training_set
from generation.training.loop.loop import Hooks
from generation.training.loop.state_files import TrainingStates
from generation.training.run import train_course
from release.classes.class_list import load_classes
from release.errors import UserError
from release.layout.image_sets import load_images
from release.streaming.image_cache import ImageCache
from tests.in_process import InProcess
from tests.models.codes.tiny_vq_vae import (
    hierarchy_recipe,
    prior_recipe,
    save_tiny,
    save_tiny_autoencoder,
    tiny_hierarchy,
    tiny_networks,
)
from tests.recipe_text import as_toml, tiny_build
from tests.sets.painter import paint
from tests.sets.small_releases import CLASSES, write_release

SAMPLER = 'method = "native", steps = 1'


def drawn_images(count: int = 6) -> DrawnImages:
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return DrawnImages(
        images, None, torch.arange(count) % 3, ImageRandom(3, 0, torch.arange(count))
    )


# ---------------------------------------------------------------- the codebook


def test_codes_follow_the_latents_by_their_averages() -> None:
    book = Codebook(4, 2, decay=0.75).train()
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(8, 2, 3, 3, generator=generator) for _ in range(3)]
    first = batches[0].permute(0, 2, 3, 1).reshape(-1, 2).double()
    codes = first[torch.linspace(0, len(first) - 1, 4).long()]
    counts, sums = torch.zeros(4).double(), torch.zeros(4, 2).double()
    for z in batches:
        flat = z.permute(0, 2, 3, 1).reshape(-1, 2).double()
        nearest = (flat[:, None] - codes).square().sum(2).argmin(1)
        passed, missed, numbers = book(z)
        assert torch.equal(numbers.flatten(), nearest)
        wanted = codes[nearest].view(8, 3, 3, 2).permute(0, 3, 1, 2)
        assert (passed - wanted).abs().max() < 1e-5
        assert abs(float(missed) - float((flat - codes[nearest]).square().mean())) < 1e-6
        hot = F.one_hot(nearest, 4).double()
        counts, sums = 0.75 * counts + 0.25 * hot.sum(0), 0.75 * sums + 0.25 * hot.T @ flat
        total = counts.sum()
        codes = sums / ((counts + 1e-5) / (total + 4e-5) * total)[:, None]
        assert (book.vectors - codes).abs().max() < 1e-5
    before = book.vectors.clone()
    book.eval()(batches[0])
    assert torch.equal(book.vectors, before)


def test_a_code_that_is_never_nearest_stays_and_gradients_pass_straight_through() -> None:
    book = Codebook(3, 2, decay=0.5).train()
    z = torch.zeros(1, 2, 2, 2)
    book(z)
    book.vectors[2] = torch.tensor([5.0, 5.0])
    far = z.clone().requires_grad_(True)
    passed, missed, _ = book(far)
    assert book.vectors[2].tolist() == [5.0, 5.0]
    passed.sum().backward()
    assert torch.equal(far.grad, torch.ones_like(z))
    assert missed.requires_grad


# ---------------------------------------------------------------- networks and losses anew


def convolved(state: dict[str, Tensor], name: str, x: Tensor, **how: int) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)


def enlarged(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)


def stack(state: dict[str, Tensor], name: str, first: int, x: Tensor) -> Tensor:
    """A convolution, one residual block, a ReLU."""
    x = convolved(state, f"{name}.{first}", x, padding=1)
    y = convolved(state, f"{name}.{first + 1}.wide", x.relu(), padding=1)
    return (x + convolved(state, f"{name}.{first + 1}.back", y.relu())).relu()


def anew(network: Hierarchy, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What is made of x, and the two levels' mean squares, in float64."""
    s = {name: weight.double() for name, weight in network.state_dict().items()}

    def nearest(book: str, z: Tensor) -> Tensor:
        codes, flat = s[f"{book}.vectors"], z.permute(0, 2, 3, 1)
        found = (flat[..., None, :] - codes).square().sum(-1).argmin(-1)
        return codes[found].permute(0, 3, 1, 2)

    down = {"stride": 2, "padding": 1}
    y = convolved(s, "encode_bottom.0", x.double(), **down).relu()
    y = convolved(s, "encode_bottom.2", y, **down).relu()
    seen = stack(s, "encode_bottom", 4, y)
    top = stack(s, "encode_top", 2, convolved(s, "encode_top.0", seen, **down).relu())
    top = convolved(s, "to_top", top)
    top_codes = nearest("top", top)
    said = enlarged(s, "decode_top.3", stack(s, "decode_top", 0, top_codes))
    bottom = convolved(s, "to_bottom", torch.cat([said, seen], 1))
    bottom_codes = nearest("bottom", bottom)
    both = torch.cat([enlarged(s, "enlarge_top", top_codes), bottom_codes], 1)
    out = enlarged(s, "decode.3", stack(s, "decode", 0, both)).relu()
    out = enlarged(s, "decode.5", out)
    return out, (top - top_codes).square().mean(), (bottom - bottom_codes).square().mean()


def test_the_autoencoder_and_its_loss_are_those_of_the_paper() -> None:
    network, images = tiny_hierarchy(), drawn_images()
    x = images.images.float() / 127.5 - 1
    made, missed = network(x)
    wanted, top, bottom = anew(network, x)
    assert (made - wanted).abs().max() / wanted.abs().max() < 1e-5
    assert abs(float(missed) - float(top + bottom)) < 1e-6
    again = network.images(*network.codes(x))
    assert (again - made).abs().max() / made.abs().max() < 1e-5
    objective = HierarchyObjective(network, 0.25)
    loss = objective.updates[0].loss(objective.modules, images)
    by_hand = (wanted - (images.images.double() / 127.5 - 1)).square().mean() + (top + bottom) / 4
    assert abs(float(loss) - float(by_hand)) < 1e-6


def at_each_place(prior: Prior, codes: Tensor, told: Tensor, top: Tensor | None) -> Tensor:
    """The prior anew: place by place, from the codes before it alone."""
    s = prior.state_dict()
    reach = prior.enter.reach
    width = codes.shape[2]
    under = None
    if top is not None:
        under = s["told.codes.weight"][top].permute(0, 3, 1, 2)
        y = convolved(s, "told.wide.0", F.elu(under), padding=1)
        under = under + convolved(s, "told.back.0", F.elu(y), padding=1)
        under = under.repeat_interleave(2, 2).repeat_interleave(2, 3)
    embedded = s["codes.weight"][codes].permute(0, 3, 1, 2)
    over, beside = s["enter.over.weight"], s["enter.beside.weight"]
    x = torch.zeros_like(embedded)
    for r in range(width):
        for c in range(width):
            value = s["enter.over.bias"] + s["enter.beside.bias"]
            for i in range(reach):
                for j in range(2 * reach + 1):
                    y, z = r - reach + i, c - reach + j
                    if y >= 0 and 0 <= z < width:
                        value = value + embedded[:, :, y, z] @ over[:, :, i, j].T
            for j in range(reach):
                if c - reach + j >= 0:
                    value = value + embedded[:, :, r, c - reach + j] @ beside[:, :, 0, j].T
            x[:, :, r, c] = value
    of_class = s["classes.weight"][told]
    for number, layer in enumerate(prior.layers):
        name = f"layers.{number}"
        x = (
            attended(s, name, x, layer.heads)
            if hasattr(layer, "heads")
            else (gated(s, name, x, of_class, under))
        )
    for number in range(len(prior.output)):
        x = gated(s, f"output.{number}", x, of_class, under)
    return convolved(s, "leave", F.elu(x))


def causal(s: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """An ordinary convolution with all below and right of its middle at zero."""
    weight = s[f"{name}.convolution.weight"]
    reach = weight.shape[2] - 1
    whole = F.pad(weight, (0, reach, 0, reach))
    return F.conv2d(x, whole, s[f"{name}.convolution.bias"], padding=reach)


def gated(
    s: dict[str, Tensor], name: str, x: Tensor, of_class: Tensor, under: Tensor | None
) -> Tensor:
    y = causal(s, f"{name}.first", F.elu(x))
    if under is not None:
        y = y + convolved(s, f"{name}.told", F.elu(under))
    linear = of_class @ s[f"{name}.of_class.weight"].T + s[f"{name}.of_class.bias"]
    a, b = (causal(s, f"{name}.second", F.elu(y)) + linear[..., None, None]).chunk(2, 1)
    return x + a * b.sigmoid()


def attended(s: dict[str, Tensor], name: str, x: Tensor, heads: int) -> Tensor:
    side = x.shape[2]
    at = torch.arange(side) / side - 0.5
    grid = torch.stack([at[:, None].expand(side, side), at[None].expand(side, side)])
    placed = torch.cat([F.elu(x), grid.expand(len(x), -1, -1, -1)], 1)
    query = convolved(s, f"{name}.query", placed).flatten(2)
    key, value = convolved(s, f"{name}.both", placed).flatten(2).chunk(2, 1)
    found = []
    parts = (y.chunk(heads, 1) for y in (query, key, value))
    for q, k, v in zip(*parts, strict=True):
        scores = torch.einsum("ncq,nck->nqk", q, k) / q.shape[1] ** 0.5
        later = torch.ones(side**2, side**2, dtype=torch.bool).triu(1)
        found.append(v @ scores.masked_fill(later, -torch.inf).softmax(2).mT)
    return x + convolved(s, f"{name}.out", torch.cat(found, 1).view_as(x))


@pytest.mark.parametrize("level", ["top", "bottom"])
def test_the_priors_are_causal_networks_of_the_paper(level: str) -> None:
    networks = tiny_networks(resolution=32)
    prior: Any = networks.priors[level]
    generator = torch.Generator().manual_seed(4)
    side = prior.side
    codes = torch.randint(0, 12, (2, side, side), generator=generator)
    top = None
    if level == "bottom":
        top = torch.randint(0, 12, (2, side // 2, side // 2), generator=generator)
    told = torch.tensor([2, 0])
    whole = prior(codes, told, top)
    wanted = at_each_place(prior, codes, told, top)
    assert (whole - wanted).abs().max() / wanted.abs().max() < 1e-5
    later = codes.clone()
    later[:, 2, 1] = (later[:, 2, 1] + 1) % 12
    changed = (prior(later, told, top) - whole).abs().sum((0, 1)) > 0
    assert not changed.flatten()[: 2 * side + 2].any()
    assert changed.flatten()[2 * side + 2 :].any()
    above, rows = Above(), []
    for row in range(side):
        under = None if top is None else prior.told(top)[:, :, row : row + 1]
        rows.append(prior(codes[:, row : row + 1], told, under, above.again()))
        above.down(1)
    assert (torch.cat(rows, 2) - whole).abs().max() / whole.abs().max() < 1e-5


def test_codes_are_drawn_by_their_probabilities() -> None:
    prior: Any = tiny_networks().priors["top"]
    generator = torch.Generator().manual_seed(8)
    uniform = torch.rand(3000, 2, 2, generator=generator, dtype=torch.float64)
    told = torch.ones(3000, dtype=torch.int64)
    found = drawn(prior, told, uniform)
    logits = prior(found[:1], told[:1])
    shares = logits[0, :, 0, 0].double().softmax(0)
    counts = torch.bincount(found[:, 0, 0], minlength=12) / 3000
    assert (counts - shares).abs().max() < 0.04
    logits = prior(found, told)
    cumulated = logits.double().softmax(1).cumsum(1)
    chosen = cumulated.gather(1, found[:, None])[:, 0]
    assert (uniform < chosen + 1e-6).all()


def test_a_low_temperature_draws_the_likeliest_codes() -> None:
    prior = tiny_networks().priors["top"]
    assert isinstance(prior, Prior)
    told = torch.zeros(2, dtype=torch.int64)
    one, other = (
        drawn(prior, told, torch.full((2, 2, 2), share, dtype=torch.float64), temperature=1e-6)
        for share in (0.01, 0.99)
    )
    torch.testing.assert_close(one, other)
    assert not torch.equal(
        *(
            drawn(prior, told, torch.full((2, 2, 2), share, dtype=torch.float64))
            for share in (0.01, 0.99)
        )
    )


def test_the_priors_learn_the_codes_of_their_images() -> None:
    networks, images = tiny_networks(), drawn_images()
    objective = PriorObjective(dict(networks.priors.items()), networks.autoencoder)
    x = images.images.float() / 127.5 - 1
    top, bottom = networks.autoencoder.codes(x)
    for update, name, codes, told in zip(
        objective.updates, ("top", "bottom"), (top, bottom), (None, top), strict=True
    ):
        logits = at_each_place(networks.priors[name], codes, images.conditions, told)
        wanted = -logits.double().log_softmax(1).gather(1, codes[:, None]).mean()
        assert abs(float(update.loss(objective.modules, images)) - float(wanted)) < 1e-6


def test_the_imagenet_recipes_have_the_counts_that_their_layers_make() -> None:
    recipe: Any = load_training_recipe("imagenet-vq-vae-2-256")
    autoencoder: Any = load_training_recipe("imagenet-vq-vae-256")
    with torch.device("meta"):
        priors = new_priors(recipe.network, codes=512, resolution=256, classes=1000)
        networks = [*priors.values(), Hierarchy(autoencoder.network, 3)]
    counts = [sum(p.numel() for p in network.parameters()) / 1e6 for network in networks]
    assert round(counts[0] + counts[1], 1) == 1156.1
    assert round(counts[2], 2) == 1.72
    for change, words in (
        ({"kernel": 4}, "kernel 4 is even"),
        ({"layers": 3, "attention": 2}, "3 layers do not part into 2"),
        ({"heads": 3}, "3 heads do not divide 8"),
    ):
        shape = {"hidden": 8, "residual": 8, "layers": 2} | change
        with pytest.raises(ValueError, match=words):
            PriorShape.model_validate(shape)


# ---------------------------------------------------------------- by the commands


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """real/ in colour at 16 px, classes.csv, vq.toml, priors.toml."""
    folder = tmp_path_factory.mktemp("vq-vae-2")
    images = np.stack([paint(i % 4, i, 16, 10) for i in range(40)])
    write_release(folder / "real", {"train": [images]}, kind="real", dataset="shapes")
    lines = ["id,wnid,name,prompt", *(f"{c.label},{c.wnid},{c.name},{c.prompt}" for c in CLASSES)]
    (folder / "classes.csv").write_text("\n".join(lines) + "\n")
    classes = str(folder / "classes.csv")
    (folder / "vq.toml").write_text(as_toml(hierarchy_recipe(classes)))
    priors = prior_recipe(folder / "vq-run/checkpoint", classes)
    (folder / "priors.toml").write_text(as_toml(priors))
    return folder


def train(place: Path, recipe: str, **given: Any) -> Path:
    options = {"recipe": str(place / f"{recipe}.toml"), "data": str(place / "real")}
    finetune_generator(**options | {"out": place / f"{recipe}-run", "as_json": True} | given)
    return place / f"{recipe}-run/checkpoint"


def test_from_images_to_a_release(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    InProcess(monkeypatch)
    with pytest.raises(UserError, match=r"is not a checkpoint of vq-vae: no autoencoder\.json"):
        train(place, "priors", out=tmp_path / "early")
    autoencoder = train(place, "vq")
    checkpoint = train(place, "priors")
    for name in ("autoencoder.json", "autoencoder.safetensors"):
        assert (checkpoint / name).read_bytes() == (autoencoder / name).read_bytes()
    record = json.loads((checkpoint / "training.json").read_text())
    assert len(record["recipe"]["stage"]["sha256"]) == 64
    found = trained_checkpoint(checkpoint)
    assert (found.generator, found.resolution) == ("vq-vae-2", 16)
    written = tiny_build(place / "classes.csv", "vq-vae-2", checkpoint, SAMPLER)
    (tmp_path / "build.toml").write_text(written)
    recipe = load_recipe(str(tmp_path / "build.toml"))
    classes = load_classes(recipe.classes)
    plan = plan_build(recipe, recipe.stages, classes, 2, tmp_path / "release", classes)
    manifest = build_release(plan, RunSettings(), lambda _: None).manifest
    assert manifest is not None
    assert verify_release(plan.release, manifest, 1, lambda _: None).problems == ()
    made = load_images(tmp_path / "release", "16", "train").images
    assert len({image.tobytes() for image in made}) == 8
    with pytest.raises(UserError, match="the priors begin from nothing"):
        train(place, "priors", out=tmp_path / "on", start=str(checkpoint))
    larger = save_tiny_autoencoder(tmp_path / "larger", 32)
    with pytest.raises(UserError, match="make them the same"):
        train(place, "vq", out=tmp_path / "on", start=str(larger))


@pytest.mark.parametrize("which", ["hierarchy", "priors"])
def test_a_training_that_is_killed_goes_on_to_the_same_weights(
    which: str, place: Path, tmp_path: Path
) -> None:
    classes = str(place / "classes.csv")
    training = {"steps": 5, "accumulation": 2, "flip": True, "save_every": 2}
    images = open_training_set(Wanted(place / "real", "fit", (16,)), 1e9, ImageCache(limit=0))
    processes, stage = PartialState(cpu=True), {"channels": 3}
    autoencoder = save_tiny_autoencoder(tmp_path / "autoencoder")

    def begun() -> Any:
        if which == "hierarchy":
            recipe: Any = hierarchy_recipe(classes, training=training)
            return hierarchy_trainable.course(recipe, None, images, processes)
        recipe = prior_recipe(autoencoder, classes, training=training, stage=stage)
        return prior_trainable.course(recipe, None, images, processes)

    def run(folder: Path, stop: int | None) -> dict[str, Tensor]:
        done = 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            if done == stop:
                raise KeyboardInterrupt

        config = hierarchy_recipe(training=training).training
        states = TrainingStates(folder, "key", config.save_every)
        learner = train_course(begun(), config, states, processes, Hooks(advance))
        found = nn.ModuleDict(dict(learner.trained)).state_dict()
        return {name: weight.clone() for name, weight in found.items()}

    whole = run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", 3)
    resumed = run(tmp_path / "stopped", None)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_image_follows_from_its_own_row_alone(tmp_path: Path) -> None:
    source = generator_source("vq-vae-2")
    folder = save_tiny(tmp_path / "checkpoint")
    assert source.size_problem(folder, 16, None) is None
    assert "must be a first stage" in source.size_problem(folder, 16, 8)
    generator: Any = source.load(source.locate(str(folder)), compiled=False)
    prompts = ["plum", "apple", "plum"]
    batch = ImageBatch(prompts, [2, 0, 2], [5, 6, 7], None, 16)
    images = generator.sample(batch, SETTINGS)
    order = [2, 0, 1]
    turned = ImageBatch([prompts[i] for i in order], [2, 2, 0], [7, 5, 6], None, 16)
    np.testing.assert_array_equal(generator.sample(turned, SETTINGS), images[order])
    assert images.shape == (3, 16, 16, 3)
    for settings, words in (
        (SamplerConfig(), 'their sampler is { method = "native" }'),
        (SamplerConfig(method="native", guidance=2.0), "without guidance"),
    ):
        with pytest.raises(UserError, match=words):
            generator.sample(batch, settings)
    with pytest.raises(UserError, match="class 'fig' is not among the 3"):
        generator.sample(ImageBatch(["fig"] * 3, [0] * 3, [1, 2, 3], None, 16), SETTINGS)


def test_a_thousand_classes_are_told_apart() -> None:
    networks = tiny_networks(tuple(f"thing {i}" for i in range(1000)))
    asked = ["thing 0", "thing 517", "thing 999"]
    images = CodeGenerator(networks).sample(
        ImageBatch(asked, [0, 517, 999], [7, 7, 7], None, 16), SETTINGS
    )
    assert isinstance(images, np.ndarray)
    assert len({image.tobytes() for image in images}) == 3


@pytest.mark.parametrize("file", ["network.json", "weights.safetensors", "autoencoder.safetensors"])
def test_a_damaged_checkpoint_is_refused_in_one_line(file: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "checkpoint")
    (folder / file).write_bytes((folder / file).read_bytes()[:60])
    source = generator_source("vq-vae-2")
    with pytest.raises(UserError, match=r"is damaged|is not a whole checkpoint") as refusal:
        source.load(source.locate(str(folder)), compiled=False)
    assert "\n" not in str(refusal.value)
    (folder / file).unlink()
    with pytest.raises(UserError, match=f"no {file} there"):
        source.locate(str(folder))
