"""The command `select-sampler`."""

from pathlib import Path
from typing import Annotated

import typer

from builder.cluster.cluster import ClusterOptions
from metrics.cache_folder import CACHE
from metrics.features.extractors import DEFAULT_EXTRACTOR
from metrics.selection.options import (
    SPLIT,
    Cache,
    Device,
    DryRun,
    ExtractorName,
    Real,
    SomeWorkers,
    Split,
    Test,
    require_places,
    require_tuning,
)
from release.commands.command import help_ends, run_command
from release.commands.options import (
    STATE_SECONDS,
    Json,
    Scheduler,
    SchedulerFile,
    StateEvery,
    TlsCa,
    TlsCert,
    TlsKey,
)

RecipeName = Annotated[str, typer.Option(help="A built-in recipe's name or a TOML file.")]
Out = Annotated[Path, typer.Option(help="Folder of the sweep: points, results, pictures.")]
Stage = Annotated[
    int | None, typer.Option(help="Resolution of the stage to sweep; by default the first.")
]
Method = Annotated[
    str | None,
    typer.Option(
        help="ddpm, ddim, dpm-solver++ or what the generator has; by default the stage's own."
    ),
]
Guidance = Annotated[
    str | None, typer.Option(help="Comma-separated; an axis not given stays as in the recipe.")
]
Gamma = Annotated[str | None, typer.Option(help="Log-variance coefficients, ddpm only.")]
Eta = Annotated[
    str | None, typer.Option(help="Shares of DDPM's noise, with --method ddim: 1 is all of it.")
]
Steps = Annotated[str | None, typer.Option(help="Step counts.")]
Augmentation = Annotated[str | None, typer.Option(help="Of a super-resolution stage's input.")]
BlackPoint = Annotated[
    str | None, typer.Option(help="Grey levels up to which finished pixels become black.")
]
Truncation = Annotated[
    str | None, typer.Option(help="Scales of a GAN's noise, with --method truncation.")
]
Temperature = Annotated[
    str | None, typer.Option(help="At which VQ-VAE-2's codes are drawn, with --method native.")
]
ClassifierScale = Annotated[
    str | None,
    typer.Option(help="Of the gradient of the classifier that the stage's sampler names."),
]
SpacingPower = Annotated[
    str | None,
    typer.Option(help="1 is evenly spaced steps, 2 quadratically, more where there is less noise."),
]
GuidanceFrom = Annotated[
    str | None,
    typer.Option(help="Least shares of noise, 0 to 1, at which guidance acts."),
]
GuidanceTo = Annotated[
    str | None,
    typer.Option(help="Greatest shares of noise, 0 to 1, at which guidance acts."),
]
PerClass = Annotated[int, typer.Option(min=1, help="Images of each class and point.")]
ShortList = Annotated[
    int, typer.Option(min=0, help="So many points, the best by distance, get a CAS.")
]
CasAll = Annotated[bool, typer.Option("--cas-all", help="Every point gets a CAS.")]
CasPerClass = Annotated[
    int | None, typer.Option(min=1, help="Images to train on; by default as --per-class.")
]
CasStage = Annotated[
    int | None,
    typer.Option(
        help="Resolution of the images for CAS; by default the classifier's own where the recipe "
        "goes on to it, else the stage's, brought to the classifier's size."
    ),
]
Classifier = Annotated[
    str | None,
    typer.Option(help="Classifier recipe for CAS; by default a small one that sees their colour."),
]
Seeds = Annotated[str, typer.Option(help="Classifier seeds.")]


def main() -> None:
    """Console entry point."""
    run_command(select_sampler)


@help_ends(
    """
    Examples (build-dataset --real fashion-mnist makes the real release):

    \b
      select-sampler --recipe fashion-mnist --real releases/fashion-mnist-real \\
        --stage 16 --method ddpm --guidance 1,1.25,1.5,2 --gamma 0,0.3,1 --steps 8,16,32 \\
        --per-class 100 --cas-per-class 500 --out sweeps/base --dry-run
      select-sampler --recipe imagenet-if --real /shared/imagenet-1k-real --stage 64 \\
        --guidance 1,1.25,1.5,2 --classifier imagenet-resnet50 --cas-per-class 1200 \\
        --scheduler-file /shared/scheduler.json --out /shared/sweeps/base
      select-sampler --recipe fashion-mnist-biggan --real releases/fashion-mnist-real \\
        --truncation 0.5,0.75,1 --out sweeps/biggan
    """
)
def select_sampler(
    recipe: RecipeName,
    real: Real,
    out: Out,
    stage: Stage = None,
    method: Method = None,
    guidance: Guidance = None,
    gamma: Gamma = None,
    eta: Eta = None,
    steps: Steps = None,
    noise_augmentation: Augmentation = None,
    black_point: BlackPoint = None,
    truncation: Truncation = None,
    temperature: Temperature = None,
    classifier_scale: ClassifierScale = None,
    spacing_power: SpacingPower = None,
    guidance_from: GuidanceFrom = None,
    guidance_to: GuidanceTo = None,
    per_class: PerClass = 100,
    short_list: ShortList = 4,
    cas_all: CasAll = False,
    cas_per_class: CasPerClass = None,
    cas_stage: CasStage = None,
    classifier: Classifier = None,
    seeds: Seeds = "0,1,2",
    state_every: StateEvery = STATE_SECONDS,
    extractor: ExtractorName = DEFAULT_EXTRACTOR,
    cache: Cache = CACHE,
    device: Device = "auto",
    workers: SomeWorkers = None,
    scheduler: Scheduler = None,
    scheduler_file: SchedulerFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    split: Split = SPLIT,
    test: Test = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Sweep one stage's sampler settings and choose by Fréchet distance and CAS.

    Each point of the grid is a small release; all are built on one cluster. Their Fréchet distance
    to the tuning split, a tenth of train that no generator learned from, makes a short list, on
    which the classifier's accuracy (CAS) decides. The choice becomes OUT/RECIPE-selected.toml.
    Rerun the same command to go on; a grid with more points computes only those.
    """
    from metrics.selection.sampler_sweep import AskedCas, run_sweep, swept_grid, swept_stage

    require_tuning(split if test is None else test)
    require_places(out, cache, device)
    options = ClusterOptions(workers, scheduler, scheduler_file, tls_ca, tls_cert, tls_key)
    selection = swept_stage(recipe, stage, real, per_class, extractor, out)
    axes = (
        *(guidance, gamma, eta, steps, noise_augmentation, black_point),
        *(truncation, temperature, classifier_scale, spacing_power, guidance_from, guidance_to),
    )
    grid, images = swept_grid(selection, method, axes), cas_per_class or per_class
    cas = AskedCas(cas_all, short_list, classifier, images, seeds, cas_stage, state_every)
    run_sweep(recipe, selection, grid, cas, options, cache, device, dry_run, as_json)


if __name__ == "__main__":
    main()
