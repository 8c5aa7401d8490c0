"""EDM2 on ImageNet, 64 px and 512 px: one .safetensors file by its authors' keys.

Its authors' pickles hold code, which is not run here: each is converted once. The latents of 512 px
are those of Stable Diffusion's ft-MSE autoencoder: its folder sd-vae-ft-mse beside the file, else
the Hub's. To import it is to import no torch.
"""

from dataclasses import dataclass
from pathlib import Path

from generation.diffusion.sampler_config import EDM
from generation.families.edm2.plan import LATENT_CHANNELS, EDM2Plan, plan_of
from generation.generator import Generator
from generation.networks.flops import Work
from generation.networks.guide_fit import guide_difference
from generation.networks.image_sizes import from_nothing, one_size
from generation.pretrained.autoencoder_files import AutoencoderFiles, autoencoder_beside
from generation.pretrained.diffusers_folder import file_sha256
from generation.pretrained.source_files import locate_file
from release.errors import UserError
from release.files.commit import sha256_text

AUTOENCODER = "stabilityai/sd-vae-ft-mse"
ADDRESS = "nvlabs-fi-cdn.nvidia.com/edm2/posthoc-reconstructions"
CONVERSION = (
    'python -c "import pickle; from safetensors.torch import save_file; '
    "net = pickle.load(open('{name}.pkl', 'rb'))['ema']; "
    "save_file({{k: v.contiguous() for k, v in net.state_dict().items()}}, '{name}.safetensors')\""
)


@dataclass
class EDM2Source:
    """The interface of generation/generator.py, guides included."""

    def locate(self, checkpoint: str) -> Path:
        """The file; UserError for a pickle, with the line that converts it, and for an autoencoder
        that is out of reach."""
        name = Path(checkpoint).stem
        conversion = f"in a clone of NVlabs/edm2, {CONVERSION.format(name=name)}"
        if Path(checkpoint).suffix == ".pkl":
            raise UserError(
                f"{checkpoint} is a pickle, which runs code of its own when it is read: convert it "
                f"once, {conversion}"
            )
        file = locate_file(checkpoint, f"{ADDRESS}/{name}.pkl, convert it {conversion}")
        if plan_of(file).channels == LATENT_CHANNELS:
            autoencoder_of(file)
        return file

    def sha256(self, file: Path) -> str:
        """Of all that decides the pixels: the file and, where it is on latents, its autoencoder."""
        if plan_of(file).channels != LATENT_CHANNELS:
            return file_sha256(file)
        return sha256_text(f"{file_sha256(file)} {autoencoder_of(file).sha256}")

    def unconditional(self, file: Path) -> bool:
        """Whether the network knows of no classes."""
        return plan_of(file).classes == 0

    def methods(self) -> tuple[str, ...]:
        """The sampler methods that it takes."""
        return (EDM,)

    def size_problem(self, file: Path | None, resolution: int, parent: int | None) -> str | None:
        """Why it makes no image of `resolution` px as a first stage."""
        if file is None:
            return from_nothing(parent)
        return from_nothing(parent) or one_size(plan_of(file).resolution, resolution)

    def guide_problem(self, file: Path, guide: Path) -> str | None:
        """Why `guide` cannot guide the network in `file`. One that knows no classes guides, too:
        that is how EDM2 does classifier-free guidance."""
        plan, weaker = plan_of(file), plan_of(guide)
        if weaker.classes not in (0, plan.classes):
            return f"knows {weaker.classes} classes, the network it is to guide {plan.classes}"
        return guide_difference(_task(plan), _task(weaker))

    def work(self, checkpoint: str, resolution: int) -> Work | None:
        """Of a published network, by its file's name."""
        from generation.families.edm2.work import published_work

        return published_work(checkpoint, resolution)

    def load(self, file: Path, compiled: bool) -> Generator:
        """float16 on the GPU if there is one, as its authors sample it; else float32 on the CPU."""
        return self._loaded(file, None, compiled)

    def load_guided(self, file: Path, guide: Path, compiled: bool) -> Generator:
        """The same, guided by the network in `guide`."""
        return self._loaded(file, guide, compiled)

    def _loaded(self, file: Path, guide: Path | None, compiled: bool) -> Generator:
        from generation.families.edm2.sampling import EDM2Generator
        from generation.networks.placement import best_placement

        placement = best_placement(compiled).on_gpu("float16")
        on_latents = plan_of(file).channels == LATENT_CHANNELS
        return EDM2Generator(file, autoencoder_of(file) if on_latents else None, placement, guide)


def autoencoder_of(file: Path) -> AutoencoderFiles:
    """That of latents."""
    return autoencoder_beside(file, AUTOENCODER)


def _task(plan: EDM2Plan) -> dict[str, int]:
    return {"side": plan.side, "channels": plan.channels}


GENERATOR = EDM2Source()
