"""What frozen features are worth elsewhere: solver, k-NN, few-shot, the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from metrics.evaluate_representation import evaluate_representation, parse_shots
from metrics.features.extractors import load_extractor
from metrics.features.logistic import fit_logistic
from metrics.features.named_networks import name_networks
from metrics.features.stopping import Stopping
from metrics.representation import evaluation, probe
from metrics.representation.few_shot import draw
from metrics.representation.neighbours import NEIGHBOURS, TEMPERATURE, knn_votes
from metrics.representation.parts import Downstream, Labelled, open_downstream
from release.errors import UserError
from release.files.commit import sha256_file
from release.results.result import Result, read_result
from tests.cards.made_up_results import a_classifier_result, a_source
from tests.sets.colours import CLASSES, MANY, colour_images, untrained, write_colours

TIGHT = Stopping(excess=1e-18, iterations=3000)


def made_up(n: int, d: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features off their origin, of very unequal scales, and labels that they tell in part."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    features = rng.normal(size=(n, d)) + rng.normal(size=(k, d))[labels]
    return features * np.logspace(0, -2, d) + 3.0, labels


def exact(c: float) -> LogisticRegression:
    """Newton's method: scikit-learn's L-BFGS stops before the sixth digit."""
    return LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10, max_iter=1000)


def fitted(features, labels, k, strengths, weights=None):
    return fit_logistic(
        torch.from_numpy(features),
        torch.from_numpy(labels),
        k,
        torch.tensor(strengths, dtype=torch.float64),
        None if weights is None else torch.from_numpy(weights),
        TIGHT,
    )


@pytest.mark.parametrize(("n", "d", "k"), [(300, 12, 5), (20, 40, 4), (240, 6, 24)])
def test_probe_is_scikit_learns(n, d, k):
    """Probabilities to 1e-6, whether there are more images or more dimensions."""
    features, labels = made_up(n, d, k)
    strengths = [1e-1, 1.0, 30.0, 1e4]
    ours = fitted(features, labels, k, strengths)
    assert ours.converged.all()
    for strength, logits in zip(strengths, ours.logits(torch.from_numpy(features)), strict=True):
        theirs = exact(1 / strength)
        expected = theirs.fit(features, labels).predict_proba(features)
        assert np.abs(logits.softmax(1).numpy()[:, theirs.classes_] - expected).max() < 1e-6


def test_weights_of_images_are_scikit_learns():
    features, labels = made_up(200, 8, 3)
    weights = np.random.default_rng(1).integers(0, 3, (2, 200)).astype(float)
    ours = fitted(features, labels, 3, [0.5, 0.5], weights)
    for own, logits in zip(weights, ours.logits(torch.from_numpy(features)), strict=True):
        theirs = exact(2)
        theirs.fit(features, labels, sample_weight=own)
        assert np.abs(logits.softmax(1).numpy() - theirs.predict_proba(features)).max() < 1e-6


def test_problems_one_by_one_are_those_together(monkeypatch):
    features, labels = made_up(100, 5, 3)
    together = fitted(features, labels, 3, [0.1, 1.0, 10.0])
    monkeypatch.setattr("metrics.features.logistic.MOST_LOGITS", 300)
    alone = fitted(features, labels, 3, [0.1, 1.0, 10.0])
    assert torch.allclose(together.weight, alone.weight, atol=1e-8)


def test_a_fit_that_was_cut_short_says_so():
    features, labels = made_up(100, 5, 3)
    found = fit_logistic(
        torch.from_numpy(features),
        torch.from_numpy(labels),
        3,
        torch.tensor([1e-6, 1e5], dtype=torch.float64),
        stopping=Stopping(1e-10, 6),
    )
    assert found.converged.tolist() == [False, True]


def test_knn_is_scikit_learns():
    features, labels = made_up(200, 10, 7)
    test, _ = made_up(50, 10, 7, seed=1)
    votes = knn_votes(*map(torch.from_numpy, (features, labels, test)), 7)

    def weights(distances: np.ndarray) -> np.ndarray:
        return np.exp((1 - distances) / TEMPERATURE)

    theirs = KNeighborsClassifier(NEIGHBOURS, metric="cosine", weights=weights)
    shares = theirs.fit(features, labels).predict_proba(test)
    assert np.allclose((votes / votes.sum(1, keepdim=True)).numpy(), shares, atol=1e-6)


def test_a_draw_takes_as_many_of_each_class_and_follows_its_seed():
    labels = np.repeat(np.arange(5), [3, 9, 4, 5, 6])
    rows = draw(labels, 5, 3, seed=4)
    assert np.bincount(labels[rows]).tolist() == [3] * 5
    assert len(set(rows.tolist())) == 15
    assert rows.tolist() == draw(labels, 5, 3, seed=4).tolist() != draw(labels, 5, 3, 5).tolist()


def test_the_strongest_of_the_best_is_refitted_on_train(monkeypatch):
    """Chosen on tuning among 45; the test's accuracy is that of a fit on fit and tuning."""
    monkeypatch.setattr(probe, "STOPPING", TIGHT)
    monkeypatch.setattr(probe, "STRENGTHS", np.logspace(-2, 3, 45))  # within scikit-learn's reach
    features, labels = made_up(400, 6, 4)
    parts = [
        Labelled(features[rows], labels[rows]) for rows in np.split(np.arange(400), (200, 300))
    ]
    downstream = Downstream(4, *parts)
    value = probe.linear_probe(downstream)
    accuracies = []
    for strength in probe.STRENGTHS:
        theirs = exact(1 / strength)
        accuracies.append(theirs.fit(features[:200], labels[:200]).score(*vars(parts[1]).values()))
    best = probe.STRENGTHS[np.flatnonzero(np.array(accuracies) == max(accuracies))[-1]]
    assert value["strength"] == best
    theirs = exact(1 / best)
    expected = theirs.fit(features[:300], labels[:300]).score(*vars(parts[2]).values())
    assert value["value"] == pytest.approx(expected)
    assert (value["n"], value["train_n"]) == (100, 300)
    assert value["interval"][0] < value["value"] < value["interval"][1]


# ----------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A release of 24 classes in colour, and two classifiers with the results of their training."""
    place = tmp_path_factory.mktemp("transfer")
    splits = {"train": colour_images(15, 1), "test": colour_images(5, 2)}
    write_colours(place / "colours-real", splits)
    (place / "runs").mkdir()
    for seed in (0, 1):
        untrained(place / f"runs/real-seed{seed}.safetensors", seed)
        training = a_classifier_result([a_source("made", 100)], 0.5, seed)
        training.subject["recipe"] = "colours"
        training.write(place / f"runs/real-seed{seed}.json")
    return place


def evaluate(folder: Path, out: Path, networks: str = "runs/real-seed0.safetensors", **options):
    evaluate_representation(
        [str(folder / networks)],
        [f"{folder}/colours-real:8"],
        **{"out": out, "cache": folder / "cache", "workers": 1, **options},
    )


@pytest.fixture(scope="module")
def results(folder) -> dict[str, Result]:
    evaluate(folder, folder / "results", "runs")
    return {path.name: read_result(path) for path in (folder / "results").glob("*.json")}


def test_every_classifier_of_a_run_folder_has_a_result(results):
    assert sorted(results) == [f"real-seed{seed}-on-colours-8.json" for seed in (0, 1)]
    first = results["real-seed0-on-colours-8.json"]
    assert (first.kind, first.dataset, first.seeds) == (
        "representation",
        "colours",
        {"classifier": 0},
    )
    assert first.subject["system"] == "resnet10t (colours) on 100 of made"
    assert first.subject["sources"][0]["content_sha256"] == "made-content"
    assert first.reference["n"] == {"train": 15 * MANY, "test": 5 * MANY}
    wanted = ["few_shot_1", "few_shot_10", "few_shot_5", "knn", "linear_probe"]
    assert sorted(first.values) == wanted
    for value in first.values.values():
        assert value["interval"][0] <= value["value"] <= value["interval"][1]
        assert value["better"] == "higher"
        assert value["settings"]["protocol"]
    assert first.values["few_shot_5"]["settings"]["seeds"] == [0, 1, 2, 3, 4]
    # hues are told apart by any network's features, and by more images better
    assert first.values["linear_probe"]["value"] > 0.8
    assert first.values["few_shot_1"]["value"] < first.values["few_shot_10"]["value"]


def test_the_probe_is_scikit_learns_on_the_same_features(folder, results):  # noqa: ARG001
    """To 1e-6, on those of a network."""
    name = f"classifier@{folder}/runs/real-seed0.safetensors"
    downstream = open_downstream(f"{folder}/colours-real:8")
    train = downstream.features(load_extractor(name, "cpu"), folder / "cache").train
    features = train.features.astype(float)
    (logits,) = fitted(features, train.labels, MANY, [1.0]).logits(torch.from_numpy(features))
    theirs = exact(1.0).fit(features, train.labels).predict_proba(features)
    assert np.abs(logits.softmax(1).numpy() - theirs).max() < 1e-6


def test_a_rerun_computes_what_is_missing_alone(folder, tmp_path, monkeypatch):
    evaluate(folder, tmp_path, evaluations="knn")
    (path,) = tmp_path.glob("*.json")
    first = read_result(path)
    monkeypatch.setattr(evaluation, "nearest_neighbours", lambda *_: pytest.fail("computed again"))
    evaluate(folder, tmp_path, evaluations="knn,few_shot", shots="2", seeds="3,4")
    second = read_result(path)
    assert second.values["knn"] == first.values["knn"]
    assert set(second.values) == {"knn", "few_shot_2"}
    assert set(second.values["few_shot_2"]["by_seed"]) == {"3", "4"}


def test_another_networks_result_is_not_written_over(folder, tmp_path):
    evaluate(folder, tmp_path, evaluations="knn")
    (path,) = tmp_path.glob("*.json")
    path.rename(tmp_path / "real-seed1-on-colours-8.json")
    with pytest.raises(UserError, match="holds another measurement"):
        evaluate(folder, tmp_path, "runs/real-seed1.safetensors", evaluations="knn")


def test_a_timm_model_in_a_folder(folder, tmp_path):
    import timm
    from timm.models import save_for_hf

    model = timm.create_model("test_resnet", num_classes=3)
    save_for_hf(model, str(tmp_path / "mine"), safe_serialization=True)
    evaluate_representation(
        [str(tmp_path / "mine")],
        [f"{folder}/colours-real:8"],
        out=tmp_path / "out",
        evaluations="knn",
        cache=tmp_path / "cache",
        workers=1,
    )
    result = read_result(tmp_path / "out/mine-on-colours-8.json")
    assert result.subject["system"] == "mine"
    assert result.seeds == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"evaluations": "knm"}, "evaluation 'knm'"),
        ({"shots": "0,1"}, "--shots '0,1'"),
        ({"seeds": "1,1"}, "1 is there twice"),
        ({"shots": "40"}, "fit images of class"),
        ({"networks": "runs/none.safetensors"}, "no such file"),
        ({"networks": "colours-real"}, "holds neither classifiers"),
        ({"batch": 0}, "--batch 0"),
    ],
)
def test_bad_input_is_told_before_features_are_computed(
    folder, tmp_path, monkeypatch, options, said
):
    monkeypatch.setattr(
        "metrics.representation.evaluating.load_extractor", lambda *_: pytest.fail("loaded")
    )
    with pytest.raises(UserError, match=said):
        evaluate(folder, tmp_path, **options)


def test_only_real_held_out_images_are_tested_on(folder, tmp_path):
    write_colours(tmp_path / "made", {"train": colour_images(2, 1)}, kind="synthetic")
    with pytest.raises(UserError, match="is not real"):
        open_downstream(f"{tmp_path}/made:8")
    with pytest.raises(UserError, match="held out"):
        open_downstream(f"{folder}/colours-real:8:tuning")
    with pytest.raises(UserError, match="give RELEASE:CONFIG"):
        open_downstream(f"{folder}/colours-real")


def test_a_result_beside_a_classifier_is_that_of_its_training(folder, tmp_path):
    untrained(tmp_path / "other.safetensors")
    a_classifier_result([a_source("made", 100)], 0.5, 0).write(tmp_path / "other.json")
    with pytest.raises(UserError, match="is not the result of training"):
        evaluate_representation([str(tmp_path / "other.safetensors")], [f"{folder}/colours-real:8"])


def test_a_result_that_states_other_weights_is_told(tmp_path):
    file = untrained(tmp_path / "net.safetensors")
    training = a_classifier_result([a_source("made", 100)], 0.5, 0)
    training.subject["recipe"] = "colours"
    training.values["classifier_sha256"] = sha256_file(file)
    training.write(tmp_path / "net.json")
    (network,) = name_networks([str(file)])
    assert network.system == "resnet10t (colours) on 100 of made"
    untrained(file, seed=1)
    with pytest.raises(UserError, match="another classifier than net"):
        name_networks([str(file)])


def test_shots_ascend():
    assert parse_shots("10, 1,5") == (1, 5, 10)


def test_json_is_the_results(folder, tmp_path, capsys):
    evaluate(folder, tmp_path, evaluations="knn", as_json=True)
    ((path, content),) = json.loads(capsys.readouterr().out).items()
    assert read_result(Path(path)).values["knn"]["value"] == content["values"]["knn"]["value"]
    assert len(CLASSES) == MANY
