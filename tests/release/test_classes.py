"""The ImageNet-1k class list against timm's files, and what the loader refuses."""

import importlib.util
from itertools import combinations
from pathlib import Path

import pytest

from release.classes.class_list import load_classes, select_classes
from release.errors import UserError

# No shorter name exists that is not also the name of something else.
LONGER_THAN_TWO_WORDS = {
    "African wild dog",
    "American Staffordshire terrier",
    "Dandie Dinmont terrier",
    "Ford Model T",
    "Granny Smith apple",
    "Great Pyrenees dog",
    "Greater Swiss Mountain dog",
    "Irish water spaniel",
    "Kerry blue terrier",
    "Old English sheepdog",
    "Saint Bernard dog",
    "black widow spider",
    "electric ray fish",
    "great grey owl",
    "little blue heron",
    "rock beauty fish",
    "steel arch bridge",
    "toy terrier dog",
    "wire-haired fox terrier",
    "yellow lady's-slipper orchid",
}

# Words that name two things: what the class is prompted with instead.
TOLD_APART = {
    "n02012849": "crane bird",
    "n03126707": "construction crane",
    "n03710637": "maillot tights",
    "n03710721": "maillot swimsuit",
    "n04355933": "sunglass lens",
    "n04356056": "sunglasses",
    "n03773504": "guided missile",
    "n04008634": "artillery projectile",
    "n02108089": "boxer dog",
    "n02113186": "Cardigan corgi",
    "n02963159": "cardigan sweater",
    "n03250847": "wooden drumstick",
    "n01608432": "kite bird",
    "n01847000": "drake duck",
    "n03793489": "computer mouse",
    "n03804744": "metal nail",
    "n04152593": "CRT screen",
    "n03782006": "computer monitor",
    "n03131574": "baby crib",
    "n01580077": "jay bird",
    "n02869837": "bonnet hat",
    "n03532672": "metal hook",
    "n02028035": "redshank bird",
    "n04493381": "soaking tub",
    "n02808440": "bathtub",
    "n03709823": "mail satchel",
    "n13133613": "corn ear",
    "n07930864": "drinking cup",
}


def timm_file(name: str) -> list[str]:
    spec = importlib.util.find_spec("timm")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "data" / "_info" / name).read_text().splitlines()


def test_the_synsets_are_timms_in_order() -> None:
    classes = load_classes("imagenet-1k")
    assert len(classes) == 1000
    assert [entry.wnid for entry in classes] == timm_file("imagenet_synsets.txt")


def test_every_name_is_a_lemma_of_its_synset_and_stands_once() -> None:
    lemmas = dict(line.split("\t") for line in timm_file("imagenet_synset_to_lemma.txt"))
    classes = load_classes("imagenet-1k")
    for entry in classes:
        assert entry.name.split(" (")[0] in lemmas[entry.wnid].split(", ")
    assert len({entry.name.casefold() for entry in classes}) == 1000
    assert select_classes(classes, "crane (bird),crane (machine)") == (classes[134], classes[517])


def test_prompts_are_short_and_distinct_for_a_tokenizer_that_ignores_case() -> None:
    prompts = [entry.prompt for entry in load_classes("imagenet-1k")]
    assert {p for p in prompts if len(p.split()) > 2} == LONGER_THAN_TWO_WORDS
    assert all(p == " ".join(p.split()) and "," not in p for p in prompts)
    plain = [p.casefold().replace("-", " ") for p in prompts]
    assert len(set(plain)) == 1000


def test_no_prompt_is_another_in_other_letters_or_number() -> None:
    """No two prompts have the same words, whatever their order, spacing or plural."""
    words = {}
    for entry in load_classes("imagenet-1k"):
        parts = entry.prompt.casefold().replace("-", " ").replace("'s", "").split()
        words[entry.prompt] = frozenset(part.removesuffix("s") for part in parts)
    joined = {prompt: "".join(sorted(parts)) for prompt, parts in words.items()}
    assert [pair for pair in combinations(joined, 2) if joined[pair[0]] == joined[pair[1]]] == []


def test_words_with_two_meanings_are_told_apart() -> None:
    prompts = {entry.wnid: entry.prompt for entry in load_classes("imagenet-1k")}
    assert {wnid: prompts[wnid] for wnid in TOLD_APART} == TOLD_APART


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,wnid,name\n0,a,A\n", "no column 'prompt'"),
        ("id,wnid,name,prompt\n1,a,A,a\n", "ids must count"),
        ("id,wnid,name,prompt\n0,a,A,x\n1,b,B,x\n", "prompt 'x' is empty or stands twice"),
        ("id,wnid,name,prompt\n0,a,A,x\n1,a,B,y\n", "wnid 'a' is empty or stands twice"),
        ("id,wnid,name,prompt\n0,a,A,\n", "prompt '' is empty"),
        ("", "no column 'id'"),
    ],
)
def test_a_bad_class_list_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "classes.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load_classes(str(path))
    assert "\n" not in str(error.value)


def test_an_unknown_class_list_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown class list 'imagenet'; known: .*imagenet-1k"):
        load_classes("imagenet")
