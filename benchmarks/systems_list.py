"""The systems of the board: what each is trained by, and what of its sampler is swept."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class System:
    """trainings: recipe, and share of the system's budget. build: the build recipe. sweeps: of each
    stage in turn, the options of select-sampler. latents: name of those that the last training
    learns from, made by the first one's autoencoder. starts: of a training, the one before it that
    it goes on from.

    Two systems may name one training, with the same share: made once, it counts for each."""

    name: str
    title: str
    trainings: tuple[tuple[str, float], ...]
    build: str
    sweeps: tuple[tuple[str, ...], ...]
    latents: str = ""
    starts: Mapping[str, str] = field(default_factory=dict)


# Unguided, as the rows of the paper's tables are; guidance is swept for Imagen alone, as there.
SOLVER = ("--method", "dpm-solver++", "--guidance", "1", "--steps", "8,16")
GUIDED = ("--method", "dpm-solver++", "--guidance", "1,1.5,2", "--steps", "8,16")
# Of networks that say epsilon: the solver, which adds no noise, leaves theirs over the images.
STOCHASTIC = ("--method", "ddim", "--eta", "1", "--guidance", "1", "--spacing-power", "1,1.5")
ANCESTRAL = (*STOCHASTIC, "--steps", "16")
ENLARGING = (*STOCHASTIC, "--steps", "8,16")
TRUNCATION = ("--method", "truncation", "--truncation", "0.5,0.75,1")
CODES = ("--method", "native", "--temperature", "0.8,0.9,1")

SYSTEMS = (
    System(
        "biggan-deep",
        "BigGAN-deep",
        (("fashion-mnist-biggan", 1.0),),
        "fashion-mnist-biggan",
        (TRUNCATION,),
    ),
    System(
        "iddpm",
        "Improved DDPM",
        (("fashion-mnist-iddpm", 1.0),),
        "fashion-mnist-iddpm",
        (ANCESTRAL,),
    ),
    System("adm", "ADM", (("fashion-mnist-adm", 1.0),), "fashion-mnist-adm", (ANCESTRAL,)),
    System(
        "adm-upsampling",
        "ADM + upsampling",
        (("fashion-mnist-adm-16", 0.5), ("fashion-mnist-adm-upsampler", 0.5)),
        "fashion-mnist-adm-u",
        (ANCESTRAL, ENLARGING),
    ),
    System(
        "cdm",
        "CDM",
        (("fashion-mnist-cdm-16", 0.5), ("fashion-mnist-cdm-32", 0.5)),
        "fashion-mnist-cdm",
        (ANCESTRAL, (*ENLARGING, "--noise-augmentation", "0,0.1")),
    ),
    System(
        "sr3",
        "SR3",
        (("fashion-mnist-sr3-base", 0.5), ("fashion-mnist-sr3", 0.5)),
        "fashion-mnist-sr3",
        (ANCESTRAL, ENLARGING),
    ),
    System("rin", "RIN", (("fashion-mnist-rin", 1.0),), "fashion-mnist-rin", (ANCESTRAL,)),
    System(
        "rin-noise-schedule",
        "RIN + noise schedule",
        (("fashion-mnist-rin-noise-schedule", 1.0),),
        "fashion-mnist-rin-noise-schedule",
        (ANCESTRAL,),
    ),
    System(
        "vq-vae-2",
        "VQ-VAE-2",
        (("fashion-mnist-vq-vae", 0.25), ("fashion-mnist-vq-vae-2", 0.75)),
        "fashion-mnist-vq-vae-2",
        (CODES,),
    ),
    System(
        "ldm-4",
        "LDM-4",
        (("fashion-mnist-vq-f4", 0.4), ("fashion-mnist-ldm", 0.6)),
        "fashion-mnist-ldm",
        (SOLVER,),
        latents="vq-f4",
    ),
    System(
        "dit",
        "DiT",
        (("fashion-mnist-vq-f4", 0.4), ("fashion-mnist-dit", 0.6)),
        "fashion-mnist-dit",
        (SOLVER,),
        latents="vq-f4",
    ),
    System(
        "simple-diffusion-unet",
        "Simple Diffusion, U-Net",
        (("fashion-mnist-simple-diffusion-unet", 1.0),),
        "fashion-mnist-simple-diffusion-unet",
        (SOLVER,),
    ),
    System(
        "simple-diffusion-uvit",
        "Simple Diffusion, U-ViT",
        (("fashion-mnist-simple-diffusion-uvit", 1.0),),
        "fashion-mnist-simple-diffusion-uvit",
        (SOLVER,),
    ),
    System(
        "imagen",
        "Imagen, fine-tuned",
        (
            ("fashion-mnist-16-web", 0.25),
            ("fashion-mnist-32-web", 0.25),
            ("fashion-mnist-16", 0.25),
            ("fashion-mnist-32", 0.25),
        ),
        "fashion-mnist-fast",
        (GUIDED, SOLVER),
        starts={
            "fashion-mnist-16": "fashion-mnist-16-web",
            "fashion-mnist-32": "fashion-mnist-32-web",
        },
    ),
)
