"""Families of generators, a folder each. A recipe's stage names one of MODULES."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.networks.flops import Memory, Work
from generation.training.recipe import BUILTIN, FIRST, TrainingRecipe
from generation.training.trainable import Trainable
from release.commands.named_modules import named_module
from release.commands.toml_recipes import load_toml, setting_in
from release.errors import UserError

if TYPE_CHECKING:  # what it takes is slow to import, and commands name generators
    from generation.diffusion.schedule import ScheduleConfig
    from generation.generator import ExemplarSource, Fp8Source, GeneratorSource, GuidedSource
    from generation.networks.peak_memory import Peak

# generator: its module, or an object of a module
MODULES = {
    "adm": "generation.families.openai_unet.family:GENERATOR",
    "adm-256": "generation.families.adm.generators:ADM_256",
    "adm-64": "generation.families.adm.generators:ADM_64",
    "adm-upsampler": "generation.families.adm.generators:ADM_UPSAMPLER",
    "biggan": "generation.families.biggan.generator",
    "cdm": "generation.families.cdm.family:GENERATOR",
    "deepfloyd-if": "generation.families.deepfloyd_if.generator",
    "diffusers": "generation.families.diffusers.generator",
    "dit": "generation.families.diffusion_transformer.family:DIT",
    "edm2": "generation.families.edm2.generator:GENERATOR",
    "iddpm": "generation.families.adm.generators:IDDPM",
    "jit": "generation.families.jit.generator:GENERATOR",
    "ldm": "generation.families.latent_diffusion.family:GENERATOR",
    "lightning-dit": "generation.families.lightning_dit.generator:GENERATOR",
    "mar": "generation.families.mar.generator:GENERATOR",
    "mean-flow": "generation.families.mean_flow.generator:GENERATOR",
    "pixel-unet": "generation.families.pixel_unet.generator",
    "rae": "generation.families.rae.generator:GENERATOR",
    "repa": "generation.families.diffusion_transformer.family:REPA",
    "repa-e": "generation.families.repa_e.generator:GENERATOR",
    "repa-e-end-to-end": "generation.families.repa_e.generator:END_TO_END",
    "rin": "generation.families.rin.family:GENERATOR",
    "simple-diffusion": "generation.families.simple_diffusion.family:GENERATOR",
    "sit": "generation.families.diffusion_transformer.family:SIT",
    "sr3": "generation.families.sr3.family:GENERATOR",
    "var": "generation.families.var.generator:GENERATOR",
    "vq-vae-2": "generation.families.vq_vae_2.generator",
}

# what finetune-generator trains, each by its module for that: those of them, and what they need:
# autoencoders, classifiers of noisy images
TRAINED = {
    "adm": "generation.families.openai_unet.family:TRAINABLE",
    "adm-256": "generation.families.adm.trainable:ADM_256",
    "adm-64": "generation.families.adm.trainable:ADM_64",
    "adm-upsampler": "generation.families.adm.trainable:ADM_UPSAMPLER",
    "biggan": "generation.families.biggan.trainable",
    "cdm": "generation.families.cdm.family:TRAINABLE",
    "deepfloyd-if": "generation.families.deepfloyd_if.trainable",
    "diffusers": "generation.families.diffusers.trainable",
    "dit": "generation.families.diffusion_transformer.family:DIT_TRAINABLE",
    "iddpm": "generation.families.adm.trainable:IDDPM",
    "ldm": "generation.families.latent_diffusion.family:TRAINABLE",
    "noisy-classifier": "generation.families.noisy_classifier.family:CLASSIFIER",
    "pixel-unet": "generation.families.pixel_unet.trainable",
    "rin": "generation.families.rin.family:TRAINABLE",
    "simple-diffusion": "generation.families.simple_diffusion.family:TRAINABLE",
    "sit": "generation.families.diffusion_transformer.family:SIT_TRAINABLE",
    "sr3": "generation.families.sr3.family:TRAINABLE",
    "vq-autoencoder": "generation.families.vq_autoencoder.trainable",
    "vq-vae": "generation.families.vq_vae_2.hierarchy_trainable",
    "vq-vae-2": "generation.families.vq_vae_2.prior_trainable",
}
COUNTED = Path(__file__).parent / "counted.json"  # by benchmarks/count_flops.py
TRAINABLE = ("RECIPE", "with_start", "sides", "memory", "with_images", "start_facts", "course")


def generator_source(name: str) -> "GeneratorSource":
    """The source of generator `name`: one of ours, or anyone's module by its dotted name.

    None of ours imports torch before `load`.
    """
    return named_module("generator", name, MODULES, ("locate", "sha256", "load"))  # type: ignore[no-any-return]


def guided_source(name: str) -> "GuidedSource":
    """The same, of one whose networks may be guided by a weaker one; UserError for any other."""
    source = generator_source(name)
    if not _is_guided(source):
        able = ", ".join(one for one in MODULES if _is_guided(generator_source(one)))
        raise UserError(f"generator {name} takes no [stage.guide]; those that do: {able}")
    return source  # type: ignore[return-value]


def fp8_source(name: str) -> "Fp8Source":
    """The same, of one whose networks may run in fp8; UserError for any other."""
    source = generator_source(name)
    if not hasattr(source, "load_fp8"):
        able = ", ".join(one for one in MODULES if hasattr(generator_source(one), "load_fp8"))
        raise UserError(f"generator {name} has no precision to choose; those that do: {able}")
    return source  # type: ignore[return-value]


def exemplar_source(name: str) -> "ExemplarSource":
    """The same, of one whose sampling may begin from images; UserError for any other."""
    source = generator_source(name)
    if not hasattr(source, "exemplar_channels"):
        able = (one for one in MODULES if hasattr(generator_source(one), "exemplar_channels"))
        raise UserError(
            f"generator {name} takes no [stage.exemplars]; those that do: {', '.join(able)}"
        )
    return source  # type: ignore[return-value]


def schedule_of(name: str, checkpoint: str) -> "ScheduleConfig | None":
    """By which a checkpoint of generator `name` is sampled; None of one that is not known here.

    UserError for a generator that guides at no interval of a schedule's steps.
    """
    find = getattr(generator_source(name), "schedule", None)
    if find is None:
        able = ", ".join(one for one in MODULES if hasattr(generator_source(one), "schedule"))
        raise UserError(
            f"generator {name} takes no guidance_interval of a noise schedule; those that do: "
            f"{able}"
        )
    found: ScheduleConfig | None = find(checkpoint)
    return found


def _is_guided(source: "GeneratorSource") -> bool:
    return hasattr(source, "guide_problem") and hasattr(source, "load_guided")


def work_of(generator: str, checkpoint: str, resolution: int) -> Work | None:
    """What an image of `resolution` px takes; None where no shape of the network is known.

    Of the built-in recipes' checkpoints it was counted before, of others it is counted now.
    """
    found = _counted().get(work_key(generator, checkpoint, resolution))
    if found is not None and not Path(checkpoint).exists():
        return Work.read(found)
    return count_work(generator, checkpoint, resolution)


def count_work(generator: str, checkpoint: str, resolution: int) -> Work | None:
    """The same, counted on torch's meta device, with the memory it takes."""
    count = getattr(generator_source(generator), "work", None)
    if count is None:
        return None
    from generation.networks.peak_memory import noted_peaks

    with noted_peaks() as peaks:
        work: Work | None = count(checkpoint, resolution)
    return work and replace(work, memory=_memory(peaks))


def _memory(peaks: "Sequence[Peak]") -> Memory | None:
    """Of the largest network that steps, and of the one that decodes; None where none was run."""
    steps = [peak for peak in peaks if not peak.decoding]
    if not steps:
        return None
    decoders = [peak for peak in peaks if peak.decoding]
    return Memory(
        max(peak.weights for peak in steps),
        max(peak.activations for peak in steps),
        max((peak.weights for peak in decoders), default=0),
        max((peak.activations for peak in decoders), default=0),
    )


def work_key(generator: str, checkpoint: str, resolution: int) -> str:
    """By which COUNTED knows a network."""
    return f"{generator} {checkpoint} {resolution}"


@lru_cache
def _counted() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(COUNTED.read_text())
    return content


def trainable(name: str) -> Trainable:
    """How generator `name` is trained: one of TRAINED, or anyone's module by its dotted name."""
    return named_module("trained generator", name, TRAINED, TRAINABLE)  # type: ignore[no-any-return]


def load_training_recipe(source: str) -> TrainingRecipe:
    """A built-in training recipe by name, or a TOML file; UserError names what is wrong in it.

    Of the class that its generator's family has for them.
    """
    kind = "training recipe"
    name = setting_in(kind, BUILTIN, source, "generator")
    if not isinstance(name, str):  # none, or what the recipe's own class complains of
        name = FIRST
    return load_toml(trainable(name).RECIPE, kind, BUILTIN, source)


@dataclass(frozen=True)
class TrainedCheckpoint:
    """A checkpoint that `finetune-generator` wrote: of which generator and stage."""

    folder: Path
    generator: str
    resolution: int
    sha256: str


def trained_checkpoint(folder: Path) -> TrainedCheckpoint:
    """What is in `folder`, by the generator whose checkpoint it is.

    UserError if it is damaged, or of none of those that are trained here.
    """
    trained = []
    for name in MODULES:
        source = generator_source(name)
        resolution_of = getattr(source, "trained_resolution", None)
        if resolution_of is None:
            continue
        trained.append(name)
        resolution = resolution_of(folder)
        if resolution is not None:
            sha256 = source.sha256(source.locate(str(folder)))
            return TrainedCheckpoint(folder, name, resolution, sha256)
    raise UserError(
        f"{folder} holds no checkpoint of a generator that finetune-generator trains: "
        f"{', '.join(trained)}"
    )
