"""Models in diffusers' folder layout, local or in the Hub's cache: found, checked and hashed.

Nothing here imports torch. Of each weight file one precision is used: float16 where the model has
it (half the download, and finer than the bfloat16 it runs in), else what is there. Safetensors come
first; a pickle (.bin) is read where there is nothing else, its weights alone.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from generation.diffusion.sampler_config import Prediction
from generation.diffusion.schedule import NoiseSchedule, ScheduleConfig
from release.errors import UserError
from release.files.hub import asking_hub
from release.files.names import within

INDEX = "model_index.json"
VARIANTS = ("fp16", None)
WEIGHTS = ("diffusion_pytorch_model", "model", "pytorch_model")
SUFFIXES = (".safetensors", ".bin")
CONFIGS = (
    "config.json",
    "scheduler_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
# Components whose names end so, a number apart, have configs only.
NO_WEIGHTS = ("scheduler", "tokenizer", "processor", "feature_extractor")
HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
LFS_BLOB = re.compile(r"[0-9a-f]{64}")
OTHERWISE = (
    "or name a local folder or a mirror as the stage's checkpoint; "
    "`--recipe fashion-mnist` needs no download"
)

LEFT_OUT = ("safety_checker", "watermarker", "image_encoder", "feature_extractor")

SCHEDULES = {"linear": "linear", "scaled_linear": "scaled-linear", "squaredcos_cap_v2": "cosine"}
PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}

# Pipeline class in model_index.json => folders it is made of; None: any class, as the index says.
Layouts = Mapping[str, Sequence[str]] | None


def locate_model(checkpoint: str, layouts: Layouts, otherwise: str = OTHERWISE) -> Path:
    """The folder of a local model, or of `OWNER/NAME[@REVISION]` on the Hub, fetched if need be.

    Raises UserError, one line, if the model is incomplete, of another kind or out of reach, then
    with what else there is to do, `otherwise`.
    """
    folder = Path(checkpoint)
    if folder.is_dir():
        gap = _gap(folder, layouts)
        if gap is not None:
            raise UserError(f"{checkpoint} is not a model in diffusers' layout: no {gap} there")
        return folder
    name = HUB_NAME.fullmatch(checkpoint)
    if name is None:
        raise UserError(
            f"checkpoint {checkpoint!r} is neither a folder that is there nor a model's name on "
            "the Hub, OWNER/NAME or OWNER/NAME@REVISION"
        )
    cached = cached_model(checkpoint)
    if cached is not None and _gap(cached, layouts) is None:
        return cached
    fetched = _fetch(name["repo"], name["revision"], layouts, otherwise)
    gap = _gap(fetched, layouts)
    if gap is not None:
        raise UserError(f"the Hub's copy of {checkpoint} has no {gap}: fetch it again, {otherwise}")
    return fetched


def cached_model(checkpoint: str) -> Path | None:
    """Where the Hub's cache has a model of that name, whole or in part; None if it has not."""
    from huggingface_hub import try_to_load_from_cache

    name = HUB_NAME.fullmatch(checkpoint)
    if name is None:
        return None
    found = try_to_load_from_cache(name["repo"], INDEX, revision=name["revision"])
    return Path(found).parent if isinstance(found, str) else None


def pipeline_class(folder: Path) -> str:
    """The diffusers pipeline the model was published for."""
    return str(json.loads((folder / INDEX).read_text())["_class_name"])


def index_components(folder: Path) -> list[str]:
    """The folders that model_index.json names, less what screens or marks images afterwards.

    Raises UserError if one of them is of a class that is in neither diffusers nor transformers:
    its code would come with the model.
    """
    index = json.loads((folder / INDEX).read_text())
    named = {
        name: value
        for name, value in index.items()
        if not name.startswith("_") and isinstance(value, list) and value[0] is not None
    }
    foreign = [name for name, (library, _) in named.items() if not _is_library(library)]
    if not isinstance(index.get("_class_name"), str) or foreign:
        what = f"{foreign[0]} is of {named[foreign[0]]}" if foreign else "its pipeline is its own"
        raise UserError(
            f"{folder} needs code that comes with the model ({what}), which is never run here: "
            "use a model whose classes are diffusers' and transformers' own"
        )
    for name in named:
        within(folder, name)
    return [name for name in named if name not in LEFT_OUT]


def _is_library(name: str) -> bool:
    """diffusers, transformers, or the name of one of diffusers' own pipelines."""
    if name in ("diffusers", "transformers"):
        return True
    spec = find_spec("diffusers")
    roots = spec.submodule_search_locations or [] if spec else []
    return name.isidentifier() and any((Path(r) / "pipelines" / name).is_dir() for r in roots)


def component_config(folder: Path, component: str) -> dict[str, Any]:
    """config.json of one component; empty if the model has no such component."""
    file = folder / component / "config.json"
    content: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    return content


def vae_factor(folder: Path) -> int:
    """How many pixels a latent's side stands for; 1 for a model without a VAE."""
    vae = component_config(folder, "vae")
    widths = vae.get("block_out_channels") or vae.get("encoder_block_out_channels") or [0]
    return int(2 ** (len(widths) - 1))


def latent_step(folder: Path) -> int:
    """The sides that a latent pipeline can make are multiples of this, in px.

    The network's patches, and latents packed into channels (FLUX: 2 x 2), must come out whole.
    """
    network = component_config(folder, "transformer") or component_config(folder, "unet")
    latents = component_config(folder, "vae").get("latent_channels")
    packed = math.isqrt(network.get("in_channels", 0) // latents) if latents else 1
    patch = network.get("patch_size")
    return vae_factor(folder) * max(packed, 1) * (patch if isinstance(patch, int) else 1)


def has_weights(component: str) -> bool:
    """Whether a component of that name is a network."""
    return not component.rstrip("_0123456789").endswith(NO_WEIGHTS)


def weights(component: Path) -> tuple[str | None, list[Path]] | None:
    """The variant to load and its files, index first; None if there is no complete set."""
    for suffix, variant, stem in product(SUFFIXES, VARIANTS, WEIGHTS):
        infix = f".{variant}" if variant else ""
        whole = component / f"{stem}{infix}{suffix}"
        if whole.is_file():
            return variant, [whole]
        index = component / f"{stem}{suffix}.index{infix}.json"
        if index.is_file():
            shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            files = [within(component, shard) for shard in shards]
            if all(file.is_file() for file in files):
                return variant, [index, *files]
    return None


def weight_files(component: Path) -> tuple[str | None, list[Path]]:
    """As `weights`; UserError if there is no complete set."""
    found = weights(component)
    if found is None:
        raise UserError(f"{component} has no complete weights")
    return found


def noise_schedule(component: Path) -> tuple[NoiseSchedule, Prediction]:
    """The schedule a network was trained with and what it predicts; UserError if unknown here."""
    settings = json.loads((component / "scheduler_config.json").read_text())
    name = settings.get("beta_schedule", "linear")
    prediction = settings.get("prediction_type", "epsilon")
    changed = [k for k in ("trained_betas", "rescale_betas_zero_snr") if settings.get(k)]
    if name not in SCHEDULES or prediction not in PREDICTIONS or changed:
        odd = changed[0] if changed else f"{name} with {prediction}"
        raise UserError(f"{component} names a noise schedule that is not supported: {odd}")
    config = ScheduleConfig.model_validate(
        {
            "name": SCHEDULES[name],
            "num_steps": settings.get("num_train_timesteps", 1000),
            "beta_start": settings.get("beta_start", 0.0001),
            "beta_end": settings.get("beta_end", 0.02),
        }
    )
    return NoiseSchedule(config), PREDICTIONS[prediction]


def schedule_at_hand(checkpoint: str) -> ScheduleConfig | None:
    """That of a model that is here, by its folder or its name; None of any other."""
    folder = Path(checkpoint)
    place = folder if folder.is_dir() else cached_model(checkpoint)
    if place is None or not (place / "scheduler" / "scheduler_config.json").is_file():
        return None
    return noise_schedule(place / "scheduler")[0].config


def model_sha256(folder: Path, components: Sequence[str]) -> str:
    """One hash over every file of `components` that is read: names and hashes, in fixed order."""
    digest = hashlib.sha256()
    for component in sorted(components):
        found = weights(folder / component)
        files = [folder / component / name for name in CONFIGS]
        files = [file for file in files if file.is_file()] + (found[1] if found else [])
        for file in sorted(files):
            digest.update(f"{component}/{file.name} {file_sha256(file)}\n".encode())
    return digest.hexdigest()


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's bytes.

    The Hub's cache links each file to a blob, and names a large blob by the SHA-256 the Hub gave
    for it: that name is taken, since reading 20 GB again in every worker takes longer than a first
    batch. It can be wrong only if someone wrote into the cache by hand.
    """
    target = file.resolve()
    if file.is_symlink() and target.parent.name == "blobs" and LFS_BLOB.fullmatch(target.name):
        return target.name
    stat = target.stat()
    return _content_sha256(target, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _content_sha256(file: Path, _size: int, _modified: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _gap(folder: Path, layouts: Layouts) -> str | None:
    """The first thing missing in `folder`, None if it is complete."""
    if not (folder / INDEX).is_file():
        return INDEX
    for component in _components(folder, layouts):
        if not any((folder / component / name).is_file() for name in CONFIGS):
            return f"{component}/ with its config"
        if has_weights(component) and weights(folder / component) is None:
            return f"complete weights in {component}/"
    return None


def _components(folder: Path, layouts: Layouts) -> Sequence[str]:
    if layouts is None:
        return index_components(folder)
    kind = pipeline_class(folder)
    if kind not in layouts:
        raise UserError(f"{folder} is a {kind}; the generator reads {', '.join(sorted(layouts))}")
    return layouts[kind]


def _fetch(repo: str, revision: str | None, layouts: Layouts, otherwise: str) -> Path:
    from huggingface_hub import snapshot_download

    with reaching_hub(repo, revision, otherwise):
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=[INDEX]))
        components = _components(folder, layouts) if (folder / INDEX).is_file() else ()
        small = [f"{c}/{name}" for c in components for name in CONFIGS]
        index = [f"{c}/*.safetensors.index*.json" for c in components]
        half = [f"{c}/*.fp16*.safetensors" for c in components]
        snapshot_download(repo, revision=folder.name, allow_patterns=small + index + half)
        lacking = [c for c in components if (folder / c).is_dir() and has_weights(c)]
        for suffix in SUFFIXES:
            full = [f"{c}/*{suffix}*" for c in lacking if weights(folder / c) is None]
            if full:
                snapshot_download(repo, revision=folder.name, allow_patterns=full)
    return folder


@contextmanager
def reaching_hub(repo: str, revision: str | None, otherwise: str) -> Iterator[None]:
    """Turn what the Hub's client raises for a model that it does not give into a UserError of one
    line, which ends with what else there is to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page, out_of_reach = f"{constants.ENDPOINT}/{repo}", ""
    try:
        with asking_hub() as out_of_reach:
            yield
    except GatedRepoError:
        raise UserError(
            f"{repo} is gated: accept its licence at {page} and run `hf auth login`, {otherwise}"
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        at = f" at revision {revision}" if revision else ""
        raise UserError(
            f"the Hub shows no model {repo}{at}: if it is private run `hf auth login`, {otherwise}"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError):
        because = f" ({out_of_reach})" if out_of_reach else ""
        raise UserError(
            f"{repo} is not on this machine and the Hub did not give it{because}: with a network "
            f"it is fetched (if {page} asks for it, accept its licence there and run "
            f"`hf auth login`), {otherwise}"
        ) from None
