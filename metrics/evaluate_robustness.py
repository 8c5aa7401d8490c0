"""The command `evaluate-robustness`."""

from pathlib import Path
from typing import Annotated

import typer

from builder.cluster.cluster import ClusterOptions
from metrics.cache_folder import CACHE
from metrics.options import Batch, Cache, Device, ExtractionScheduler, Out, SomeWorkers
from metrics.robustness.names import CORRUPTION_NAMES
from release.commands.command import help_ends, run_command
from release.commands.options import Json, SchedulerFile, TlsCa, TlsCert, TlsKey

Networks = Annotated[
    list[str],
    typer.Argument(
        help="FILE.safetensors of train-classifier --save, a folder of such files, a folder of a "
        "timm model, or an extractor of score-release that knows classes."
    ),
]
Test = Annotated[str, typer.Option(help="RELEASE:CONFIG[:SPLIT] of standard real test images.")]
Shifted = Annotated[
    list[str] | None,
    typer.Option(help="RELEASE:CONFIG[:SPLIT] of shifted images, of all or some classes; repeat."),
]
RealTrained = Annotated[
    list[str] | None,
    typer.Option(help="Networks trained on real images, whose line predicts accuracy; repeat."),
]
Corruptions = Annotated[
    str,
    typer.Option(
        help="Of the --test images; comma-separated, or all: "
        f"{', '.join(CORRUPTION_NAMES)}; frost with --frost-textures."
    ),
]
FrostTextures = Annotated[
    Path | None,
    typer.Option(help="Folder of the photographs of ImageNet-C's code, frost1.png and on."),
]
RealLabels = Annotated[
    Path | None, typer.Option(help="real.json of reassessed-imagenet, for the --test images.")
]


def main() -> None:
    """Console entry point."""
    run_command(evaluate_robustness)


@help_ends(
    """
    Examples:

    \b
      evaluate-robustness classifier.safetensors --test releases/imagenet-1k-real:224:validation \\
        --shifted releases/imagenet-r-real:224 --shifted releases/imagenet-v2-real:224 \\
        --real-trained timm:resnet50.a1_in1k --real-trained timm:vit_small_patch16_224.augreg_in1k
      evaluate-robustness results/study/runs/generated --test releases/fashion-mnist-real:32 \\
        --corruptions gaussian_noise,contrast
      evaluate-robustness timm:resnet50.a1_in1k --test releases/imagenet-1k-real:224:validation \\
        --corruptions all --frost-textures robustness/ImageNet-C/imagenet_c/imagenet_c/frost \\
        --real-labels real.json
    """
)
def evaluate_robustness(
    networks: Networks,
    test: Test,
    shifted: Shifted = None,
    real_trained: RealTrained = None,
    corruptions: Corruptions = "",
    frost_textures: FrostTextures = None,
    real_labels: RealLabels = None,
    out: Out = Path("results"),
    cache: Cache = CACHE,
    device: Device = "auto",
    batch: Batch = 64,
    workers: SomeWorkers = None,
    scheduler: ExtractionScheduler = None,
    scheduler_file: SchedulerFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: Json = False,
) -> None:
    """Test classifiers on shifted and corrupted images; one result file a network and set.

    A set of some of the classes, such as ImageNet-R, is judged among these alone. Effective
    robustness is the accuracy beyond that of real-trained classifiers as good on the standard
    images: name two or more of them. Corruptions are those of ImageNet-C, whose constants are for
    224 px. Rerun a command that was interrupted: values that a file already holds stay.
    """
    from metrics.evaluation import print_results, require_places
    from metrics.robustness.corruptions import parse_corruptions
    from metrics.robustness.evaluating import Order, evaluate_all, known_corruptions, open_set
    from metrics.robustness.evaluation import ROBUSTNESS
    from metrics.robustness.real_labels import read_real_labels

    require_places(batch, out, cache)
    standard = open_set(test, "--test")
    known = known_corruptions(corruptions, frost_textures, standard.config)
    order = Order(
        test=standard,
        shifted=[open_set(text, "--shifted") for text in shifted or []],
        corruptions=parse_corruptions(corruptions, known),
        known_corruptions=known,
        real_labels=None
        if real_labels is None
        else read_real_labels(real_labels, len(standard.manifest.classes)),
        cache=cache,
        device=device,
        batch=batch,
        cluster=ClusterOptions(workers, scheduler, scheduler_file, tls_ca, tls_cert, tls_key),
        out=out,
        quiet=as_json,
    )
    written = evaluate_all(networks, real_trained or [], order)
    print_results(written, ROBUSTNESS.names, as_json=as_json)


if __name__ == "__main__":
    main()
