"""Full fine-tuning of a network on another set, by the one training loop."""

from functools import partial
from pathlib import Path

import pytest
import torch

from classifiers.data.sources import load_source, open_source
from classifiers.training.checkpoint import load_classifier
from classifiers.training.loop import train
from classifiers.training.predictions import predict
from metrics.evaluate_representation import evaluate_representation, parse_rates
from metrics.features.extractors import load_extractor
from metrics.representation import fine_tuning
from metrics.representation.fine_tuning import recipe_for, with_new_classifier
from release.errors import UserError
from release.results.result import Result, read_result
from tests.sets.colours import CLASSES, colour_images, relabelled, untrained, write_colours

OWN = relabelled(CLASSES[::8])  # three hues, of which the network has not these classes alone
RATES = "1e-6,0.05"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tuning")
    splits = {"train": colour_images(20, 1, OWN), "test": colour_images(8, 2, OWN)}
    write_colours(folder / "hues-real", splits, OWN, dataset="hues")
    untrained(folder / "net.safetensors")
    return folder


def evaluate(place: Path, out: Path, **options: object) -> Result:
    evaluate_representation(
        [str(place / "net.safetensors")],
        [f"{place}/hues-real:8"],
        out=out,
        cache=place / "cache",
        workers=1,
        tuning_steps=12,
        **{"evaluations": "fine_tuning", "tuning_rates": RATES, **options},
    )
    (path,) = out.glob("*.json")
    return read_result(path)


def test_the_best_rate_on_tuning_is_trained_anew_on_train(place, tmp_path) -> None:
    value = evaluate(place, tmp_path).values["fine_tuning"]
    assert value["settings"]["rates"] == [1e-6, 0.05]
    assert value["rate"] == float(max(value["by_rate"], key=value["by_rate"].get))
    extractor = load_extractor(f"classifier@{place}/net.safetensors", "cpu")
    recipe = recipe_for(extractor, 12, value["rate"])
    assert (recipe.resolution, recipe.channels, recipe.mean) == (16, 3, (0.5, 0.5, 0.5))

    def right(learned: str, tested: str) -> float:
        learning, testing = (
            load_source(open_source(f"{place}/hues-real:8:{split}", 16), 16)
            for split in (learned, tested)
        )
        network = partial(with_new_classifier, extractor, len(OWN))
        model = train(recipe, learning, 0, 12, network=network)
        return float(predict(model, recipe, testing).correct(1).mean())

    assert value["tuning_accuracy"] == right("fit", "tuning") == max(value["by_rate"].values())
    assert value["value"] == right("train", "test") > 0.5
    assert (value["n"], value["train_n"]) == (24, 60)


def test_it_begins_with_the_networks_weights_and_a_new_classifier(place) -> None:
    extractor = load_extractor(f"classifier@{place}/net.safetensors", "cpu")
    found = with_new_classifier(extractor, 3)
    saved, _, _ = load_classifier(place / "net.safetensors")
    own = found.state_dict()
    for name, tensor in saved.state_dict().items():
        assert name.startswith("fc.") or torch.equal(own[name], tensor)
    assert own["fc.weight"].shape[0] == 3
    assert all(weight.requires_grad for weight in found.parameters())
    assert not any(weight.requires_grad for weight in extractor.network.parameters())


def test_trainings_that_were_done_are_not_done_again(place, tmp_path, monkeypatch) -> None:
    first = evaluate(place, tmp_path / "one").values["fine_tuning"]
    monkeypatch.setattr(fine_tuning.Attempt, "_train", lambda *_: pytest.fail("trained again"))
    assert evaluate(place, tmp_path / "two").values["fine_tuning"] == first


def test_a_rate_that_diverges_is_left_out_and_all_that_do_are_told(place, tmp_path) -> None:
    value = evaluate(place, tmp_path / "a", tuning_rates="0.05,1e30").values["fine_tuning"]
    assert (value["rate"], value["by_rate"]["1e+30"]) == (0.05, None)
    with pytest.raises(UserError, match="diverges at all of --tuning-rates"):
        evaluate(place, tmp_path / "b", tuning_rates="1e30")


def test_all_means_frozen_features(place, tmp_path) -> None:
    result = evaluate(place, tmp_path, evaluations="knn", seeds="0")
    assert set(result.values) == {"knn"}
    assert parse_rates("0.1,1e-3") == (0.001, 0.1)
    for wrong in ("", "a", "0", "-1,1", "inf"):
        with pytest.raises(UserError, match="--tuning-rates"):
            parse_rates(wrong)
