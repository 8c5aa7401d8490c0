"""Families of generators, a folder each. A recipe's stage names one of MODULES."""

from dataclasses import dataclass
from pathlib import Path

from generation.generator import GeneratorSource
from release.commands.named_modules import named_module
from release.errors import UserError

# generator: its module, or an object of a module
MODULES = {
    "adm-256": "generation.families.adm.generators:ADM_256",
    "adm-64": "generation.families.adm.generators:ADM_64",
    "adm-upsampler": "generation.families.adm.generators:ADM_UPSAMPLER",
    "biggan": "generation.families.biggan.generator",
    "deepfloyd-if": "generation.families.deepfloyd_if.generator",
    "diffusers": "generation.families.diffusers.generator",
    "dit": "generation.families.dit.generator",
    "iddpm": "generation.families.adm.generators:IDDPM",
    "ldm": "generation.families.latent_diffusion.generator:LDM_4",
    "pixel-unet": "generation.families.pixel_unet.generator",
}


def generator_source(name: str) -> GeneratorSource:
    """The source of generator `name`: one of ours, or anyone's module by its dotted name.

    None of ours imports torch before `load`.
    """
    return named_module("generator", name, MODULES, ("locate", "sha256", "load"))  # type: ignore[no-any-return]


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
