"""kill -9 of a command at each of its writes, then the same command again: the end must be that of
an undisturbed run, file by file.

One definition for the tests, which try some writes of each command, and for
benchmarks/trust/fault_campaign.py, which tries all of them. What differs between two undisturbed
runs (hosts), and times, are not compared; every other byte is, and no file may be left over.
"""

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaigns.kill_points import SENDS, kill_point
from tests.campaigns.models_brought import autoencoder, brought, codebook, lora, priors
from tests.command_server import CommandServer, Ended
from tests.servers.hub_server import Hub

TIMEOUT = 300.0
# In results: how long it took, and the hash of the file that this is in.
TIMES = {"training_seconds", "images_per_second", "seconds", "result_sha256"}
Content = Mapping[str, bytes]


@dataclass(frozen=True)
class Trial:
    """A command in the miniature's folder. before: what is done to the folder first.

    remote: its writes are requests to the Hub, and what it leaves there counts. tried: at how
    many of its writes the tests kill it; the campaign kills it at every one.
    """

    words: str
    before: Callable[[Path], None] = lambda _: None
    remote: bool = False
    tried: int = 4


def damage_a_shard(folder: Path) -> None:
    shard = sorted((folder / "made/16").glob("*.parquet"))[0]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


TRIALS: dict[str, Trial] = {
    "build": Trial("build-dataset --recipe made.toml --per-class 2 --out new --workers 1"),
    "extend": Trial("build-dataset --recipe made.toml --per-class 5 --out made --workers 1"),
    "import": Trial("build-dataset --real pictures --out new --views 8 --workers 1"),
    "another view": Trial("build-dataset --real pictures --out real --views 24 --workers 1"),
    "repair": Trial(
        "release repair made --workers 1 --trust tests.stand_in", before=damage_a_shard
    ),
    "render-card": Trial("render-card made --results results --allow-missing"),
    "score-release": Trial(
        "score-release made:8 --real real --out new --cache new-cache --metrics fd,kid,copies "
        "--sample 4 --extractor classifier@classifier.safetensors --workers 1"
    ),
    "evaluate-representation": Trial(
        "evaluate-representation classifier.safetensors --on real:16 --out new --cache new-cache "
        "--shots 1,2 --seeds 0,1 --workers 1"
    ),
    "evaluate-robustness": Trial(
        "evaluate-robustness classifier.safetensors --test real:16 --corruptions contrast,pixelate "
        "--out new --cache new-cache --workers 1"
    ),
    "train-classifier": Trial(
        "train-classifier --train made:16 --test real:16 --recipe classifier.toml "
        "--out new/cas.json --save new/classifier.safetensors --state-every 0"
    ),
    "finetune-generator": Trial(
        "finetune-generator --recipe generator.toml --data real --out new --threads 1"
    ),
    "finetune-generator, LoRA": Trial(
        "finetune-generator --recipe lora.toml --data real --out new --threads 1",
        before=brought(lora),
        tried=1,
    ),
    "finetune-generator, codebooks": Trial(
        "finetune-generator --recipe codebook.toml --data real --out new --threads 1",
        before=brought(codebook),
        tried=1,
    ),
    "finetune-generator, priors": Trial(
        "finetune-generator --recipe priors.toml --data real --out new --threads 1",
        before=brought(priors),
        tried=1,
    ),
    "release encode": Trial(
        "release encode real --autoencoder vae --config 8 --mirrored --workers 1",
        before=brought(autoencoder),
        tried=0,
    ),
    "release view": Trial("release view real --from 16 --size 8 --workers 1", tried=0),
    "run-study": Trial("run-study study.toml --out new --workers 1"),
    "leaderboard": Trial("leaderboard results --out new"),
    "publish": Trial("release publish made someone/made", remote=True),
}


@dataclass(frozen=True)
class Kill:
    """One kill and what became of the command run again. wrong: None if all is as it should be."""

    command: str
    write: int
    operation: str
    wrong: str | None
    lost: Sequence[str]


class KillSite:
    """A folder in which one command is run, killed and run again.

    whole: the miniature. hub: the one that the server's commands find (hub_environment).
    """

    def __init__(self, server: CommandServer, whole: Path, hub: Hub, name: str) -> None:
        self.trial, self.name = TRIALS[name], name
        self._server, self._whole, self._hub = server, whole, hub
        self.expected, self._volatile = self._undisturbed()
        self.operations = self._log().read_text().splitlines()
        self._log().unlink()

    def _folder(self) -> Path:
        return self._whole.parent / "case"

    def _log(self) -> Path:
        return self._whole.parent / "writes.log"

    def _undisturbed(self) -> tuple[Content, Content]:
        """What two runs leave: the first, and what in the second differs from it."""
        first = self._run_once()
        self._log().unlink()
        second = self._run_once()
        assert first.keys() == second.keys(), first.keys() ^ second.keys()
        return first, {name: second[name] for name in first if first[name] != second[name]}

    def _run_once(self) -> Content:
        with self._fresh():
            ended = self._run(0)
            assert ended.code == 0, ended
            return self._content()

    def kill(self, write: int) -> Kill | None:
        """Kill the command at its write number `write`; None if it was done before."""
        with self._fresh():
            killed = self._run(write)
            operations = self._log().read_text().splitlines()
            self._log().unlink()
            if killed.code != -9:
                assert killed.code == 0, killed
                return None
            again = self._run(0)
            found = self._content()
        self._log().unlink(missing_ok=True)
        wrong = None if again.code == 0 else f"exit code {again.code}: {again.err.strip()[-300:]}"
        lost = [name for name in self.expected if not self._same(name, found.get(name))]
        extra = [f"left over: {name}" for name in found if name not in self.expected]
        operation = operations[-1].replace(str(self._folder()), "")
        return Kill(self.name, write, operation, wrong or (extra or [None])[0], lost)

    @contextmanager
    def _fresh(self) -> Iterator[None]:
        """A copy of the miniature as the command finds it, and an empty Hub."""
        shutil.copytree(self._whole, self._folder(), symlinks=True)
        self.trial.before(self._folder())
        vars(self._hub).update(vars(Hub()))
        try:
            yield
        finally:
            shutil.rmtree(self._folder())

    def _run(self, write: int) -> Ended:
        environment = {**kill_point(write, self._log(), self._folder())}
        environment |= {SENDS: "1"} if self.trial.remote else {}
        return self._server.run(self.trial.words.split(), self._folder(), TIMEOUT, environment)

    def _content(self) -> Content:
        folder = self._folder()
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        content = {name: p.read_bytes() for name, p in files.items() if not _of_a_lease(name)}
        if self.trial.remote:
            published = self._hub.published("someone/made")
            content |= {f"hub:{name}": data for name, data in published.items()}
        return content

    def _same(self, name: str, found: bytes | None) -> bool:
        if found is None or found == self.expected[name]:
            return found is not None
        if name.endswith(".pt"):
            return _tensors(found) == _tensors(self.expected[name])
        if name.endswith(".json"):
            first = json.loads(self.expected[name])
            second = json.loads(self._volatile.get(name, self.expected[name]))
            return _agree(first, second, json.loads(found))
        return name in self._volatile


def hub_environment(address: str, home: Path) -> Mapping[str, str]:
    """By which commands find the Hub at `address`."""
    found = {"HF_ENDPOINT": address, "HF_TOKEN": "hf_test", "HF_HOME": str(home)}
    return found | {"HF_HUB_DISABLE_XET": "1"}


def _of_a_lease(name: str) -> bool:
    return "lease" in Path(name).parts


def _tensors(content: bytes) -> dict[str, bytes]:
    """The parts of a state as torch writes it, less the pickle that names them.

    Its bytes depend on which of its values are one object, as they are no more once loaded.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    return {name: part for name, part in parts.items() if "/data/" in name}


def _agree(first: Any, second: Any, found: Any) -> bool:
    """Whether `found` is as `first` where `second` is so as well, and times apart."""
    if isinstance(first, dict) and isinstance(second, dict) and isinstance(found, dict):
        return first.keys() == found.keys() and all(
            key in TIMES or _agree(first[key], second.get(key), found[key]) for key in first
        )
    if isinstance(first, list) and isinstance(second, list) and isinstance(found, list):
        return len(first) == len(found) and all(map(_agree, first, second, found))
    return first != second or found == first


def spread(count: int, most: int) -> list[int]:
    """At most `most` of 1 … count, as evenly as can be, both ends among them; the middle of one."""
    if count <= most:
        return list(range(1, count + 1))
    if most == 1:
        return [(count + 1) // 2]
    return sorted({1 + round(i * (count - 1) / (most - 1)) for i in range(most)})
