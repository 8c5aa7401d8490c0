"""Bad input of every kind that the commands' options and files allow, and how each is judged.

One definition for the tests, which try some cases, and for benchmarks/trust/bad_inputs.py, which
tries all. Each case is a good command line in the miniature's folder with one thing wrong: an
option's value, or a file that the command reads. Right is one line and exit code 2, or the right
result and exit code 0 (1 where the command looks for faults), without harm to a release: every file
of the releases is as before, but for the one that was damaged. The cases follow from the commands'
own options and the folder's files, so new ones are tried as they come.
"""

import importlib
import json
import re
import shutil
import tomllib
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import NoneType
from typing import Any

from tests.command_server import CommandServer, Ended
from tests.conftest import ROOT

SECONDS = 90.0  # a case that takes longer gave no answer
GIGABYTES = 6.0  # nor may one take more memory
RELEASES = ("real", "made")
LOOKING = ("release verify",)  # exit code 1: the command found what it looked for
GOOD = {
    "build-dataset": "--recipe made.toml --per-class 4 --out made --workers 1",
    "build-dataset --real": "pictures --out real --views 8,16,32 --workers 1",
    "build-dataset --dry-run": "--recipe made.toml --per-class 5 --out made",
    "compare-scores": "results/cas.json results/cas.json",
    "evaluate-representation": "classifier.safetensors --on real:16 --out results2 --cache cache "
    "--shots 1,2 --seeds 0 --workers 1",
    "evaluate-robustness": "classifier.safetensors --test real:16 --corruptions contrast "
    "--out results2 --cache cache --workers 1",
    "finetune-generator": "--recipe generator.toml --data real --out run2 --threads 1",
    "leaderboard": "results --out site",
    "release verify": "made",
    "release repair": "made --workers 1 --trust tests.stand_in",
    "release extend": "made --per-class 5 --workers 1 --trust tests.stand_in",
    "release reproduce": "made --sample 2 --trust tests.stand_in",
    "release publish": "made someone/made",
    "render-card": "made --results results --allow-missing",
    "run-study": "study.toml --out study --workers 1 --dry-run",
    "score-release": "made:8 --real real --out results2 --cache cache --metrics fd,kid --sample 4 "
    "--extractor classifier@classifier.safetensors --workers 1",
    "select-checkpoint": "run --recipe made.toml --real real --out sel --per-class 4 --workers 1 "
    "--dry-run",
    "select-sampler": "--recipe made.toml --real real --out sel --per-class 4 --workers 1 "
    "--dry-run",
    "train-classifier": "--train made:16 --test real:16 --recipe classifier.toml "
    "--out results2/cas.json --from classifier.safetensors",
}
# Files that a command reads, by glob; each match is damaged in each way.
READS = {
    "build-dataset": "made.toml three.csv made/build.json made/manifest.json "
    "made/markers/8/*c0000*.json made/README.md",
    "build-dataset --real": "pictures/train/apple/3.png real/build.json real/manifest.json",
    "compare-scores": "results/cas.json",
    "evaluate-representation": "classifier.safetensors real/manifest.json real/16/train-*.parquet",
    "evaluate-robustness": "classifier.safetensors real/16/test-*.parquet",
    "finetune-generator": "generator.toml three.csv real/manifest.json real/8/train-*.parquet",
    "leaderboard": "results/*.json",
    "release verify": "made/manifest.json made/build.json made/8/*c0000*.parquet "
    "made/markers/8/*c0000*.json made/sidecars/8/*c0000*.json made/README.md",
    "release repair": "made/manifest.json made/build.json made/8/*c0000*.parquet "
    "made/markers/8/*c0000*.json",
    "release extend": "made/manifest.json made/build.json",
    "release reproduce": "made/manifest.json made/8/*c0000*.parquet",
    "release publish": "made/manifest.json",
    "render-card": "made/manifest.json results/cas.json made/32/*c0000*.parquet",
    "run-study": "study.toml classifier.toml",
    "score-release": "made/manifest.json made/8/*c0000*.parquet classifier.safetensors "
    "real/8/test-*.parquet",
    "select-checkpoint": "run/training.json run/checkpoints/2/* made.toml",
    "train-classifier": "classifier.toml classifier.safetensors made/manifest.json "
    "real/16/test-*.parquet",
}
NUMBERS = ("-1", "0", "1.5", "many", "999999999999", "1e999", "nan", "")
TEXTS = ("", " ", "no-such-thing", "../../up", "/absolute/no", "\x1b[31mred", "b\udce9", "x" * 5000)
# Of these commands only such options are tried: the others are tried of the command itself.
VARIANTS = {
    "build-dataset --real": ("--real", "--views", "--crop", "--out"),
    "build-dataset --dry-run": ("--per-class",),
}
LONGEST = 1500  # characters of one line
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
FIELDS_TO = (None, [], {}, "x", -1, 1e999)
PATHS = ("no/such/place", "three.csv", "pictures", "/dev/null", "", "a" * 300, "b\udce9/x")


@dataclass(frozen=True)
class Case:
    """A command line with one thing wrong. damage: done to `file` of the folder before it runs."""

    command: str
    words: tuple[str, ...]
    what: str
    file: str | None = None
    damage: Callable[[Path], None] | None = None


def cases(whole: Path) -> Iterator[Case]:
    """All of them, in a fixed order."""
    for command, line in GOOD.items():
        words = tuple(line.split())
        yield from option_cases(command, words)
        for pattern in READS.get(command, "").split():
            found = sorted(whole.glob(pattern))
            assert found, pattern
            file = found[0].relative_to(whole).as_posix()
            for what, damage in damages(found[0]):
                yield Case(command, words, f"{what} {file}", file, damage)


def option_cases(command: str, words: Sequence[str]) -> Iterator[Case]:
    """Each option and argument of the command with each value of its kind that may be wrong."""
    place = 0  # of the next argument among the words: they come first
    for name, is_argument, kind in parameters(command):
        if name not in VARIANTS.get(command, (name,)):
            continue
        for value in NUMBERS if kind in (int, float) else PATHS if kind is Path else TEXTS:
            what = f"{name} {value[:30]!r}"
            if is_argument:
                yield Case(command, (*words[:place], value, *words[place + 1 :]), what)
            else:
                kept = [w for i, w in enumerate(words) if name not in (w, words[max(i - 1, 0)])]
                yield Case(command, (*kept, f"{name}={value}"), what)
        place += is_argument


def parameters(command: str) -> Iterator[tuple[str, bool, type]]:
    """Name, whether it is an argument, and kind of every option that takes a value."""
    function = function_of(command)
    for name, hint in typing.get_type_hints(function, include_extras=True).items():
        if name == "return" or (kind := kind_of(hint.__origin__)) is bool:
            continue
        information = hint.__metadata__[0]
        names = [n for n in information.param_decls or () if n.startswith("--")]
        yield (
            *(names[:1] or [f"--{name.replace('_', '-')}"]),
            type(information).__name__ == "ArgumentInfo",
            kind,
        )


def function_of(command: str) -> Callable[..., Any]:
    program, *sub = command.split()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module = importlib.import_module(scripts[program].split(":")[0])
    name = sub[0] if sub and not sub[0].startswith("--") else program.replace("-", "_")
    found: Callable[..., Any] = getattr(module, name)
    return found


def kind_of(hint: Any) -> type:
    """int, float, bool, Path or str: what one value of it is."""
    inner = [part for part in typing.get_args(hint) if part is not NoneType]
    if typing.get_origin(hint) is typing.Literal:
        return str
    if inner:
        return kind_of(inner[0])
    return hint if hint in (int, float, bool, Path) else str


Damage = Callable[[Path], None]


def damages(file: Path) -> Iterator[tuple[str, Damage]]:
    """What may be wrong with a file that is read."""
    yield "missing", Path.unlink
    yield "empty", lambda path: write(path, b"")
    yield "half of", lambda path: write(path, path.read_bytes()[: path.stat().st_size // 2])
    yield "a flipped bit in", flip
    yield "a Git LFS pointer for", lambda path: write(path, LFS_POINTER)
    yield "a folder in place of", folder_in_place
    yield "a dangling link for", dangling
    if file.suffix in (".json", ".toml", ".csv", ".md"):
        yield "UTF-16 in", lambda path: write(path, path.read_text().encode("utf-16"))
        yield "Latin-1 in", lambda path: write(path, path.read_bytes() + "é".encode("latin-1"))
    if file.suffix == ".json":
        yield from (
            (f"{value!r} in place of", lambda path, v=value: write(path, json.dumps(v).encode()))
            for value in ([], None, {}, "text", 1)
        )
        for key in json.loads(file.read_bytes()):
            for value in FIELDS_TO:
                yield f"{key} = {value!r} in", lambda path, k=key, v=value: set_key(path, k, v)
    if file.suffix == ".toml":
        for key in tomllib.loads(file.read_text()):
            for text in ("-1", '""', "[]", "inf", '"../../up"'):
                yield f"{key} = {text} in", lambda path, k=key, t=text: set_line(path, k, t)


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def folder_in_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("gone")


def flip(path: Path) -> None:
    """The highest bit of the byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    path.write_bytes(content)


def set_key(path: Path, key: str, value: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))


def set_line(path: Path, key: str, text: str) -> None:
    """A top-level setting of a TOML file; tables stay."""
    lines = path.read_text().splitlines()
    changed = [f"{key} = {text}" if line.startswith(f"{key} =") else line for line in lines]
    path.write_text("\n".join(changed) + "\n")


def try_case(server: CommandServer, whole: Path, case: Case) -> dict[str, Any]:
    """Run it in a copy of the folder; how it ended, and what it said."""
    folder = whole.parent / "case"
    beside = {path.name for path in whole.parent.iterdir()}
    shutil.copytree(whole, folder, symlinks=True)
    try:
        if case.file and case.damage:
            case.damage(folder / case.file)
        before = hashes(folder)
        program, *sub = case.command.split()
        ended = server.run((program, *sub, *case.words), folder, SECONDS, gigabytes=GIGABYTES)
        after = hashes(folder)
        harmed = [
            name
            for name in before
            if name != case.file and after.get(name) != before[name] and not grows(case, name)
        ]
        outside = sorted({path.name for path in whole.parent.iterdir()} - beside - {"case"})
    finally:
        shutil.rmtree(folder)
    verdict = "harm" if harmed or outside else judge(case, ended)
    # no paths of this machine, and of a traceback what it ends with: the report is for others
    said = " ".join(ended.err.rpartition("Traceback")[2].replace(str(folder), "").split())
    said = re.sub(r'.*File "[^"]*"', "", said) if verdict == "traceback" else said
    return {
        "command": case.command,
        "case": case.what,
        "words": list(case.words),
        "verdict": verdict,
        "code": ended.code,
        "seconds": round(ended.seconds, 2),
        "said": said[:400] if verdict in VERDICTS_RIGHT else (said[:200] + " … " + said[-1500:]),
        "harmed": [*harmed, *outside][:5],
    }


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the releases' files that a command must not change."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for release in RELEASES
        for path in (folder / release).rglob("*")
        if path.is_file() and "lease" not in path.parts
    }


def grows(case: Case, name: str) -> bool:
    """Whether the command is there to write such a file of its release anew."""
    parts = Path(name).parts
    if case.command in ("release extend", "build-dataset", "build-dataset --real"):
        # an index of images has another name once there are more images
        return parts[1] in ("manifest.json", "README.md", "build.json", "sidecars", "index")
    if case.command == "render-card":
        return parts[1] in ("manifest.json", "README.md", "croissant.json", "samples")
    return case.command == "release repair"


VERDICTS_RIGHT = ("one line", "right", "found")


def judge(case: Case, ended: Ended) -> str:
    """The verdict: the first three are right."""
    lines = ended.err.strip().splitlines()
    if ended.timed_out:
        return "no answer"
    if "Traceback" in ended.err:
        return "traceback"
    if ended.code == 0:
        return "right"
    if ended.code == 1 and case.command in LOOKING and ended.out.strip():
        return "found"
    if ended.code == 2:
        errors = [line for line in lines if line.startswith("error: ")]
        return "one line" if errors == lines[-1:] and len(lines[-1]) < LONGEST else "many lines"
    return f"exit code {ended.code}"
