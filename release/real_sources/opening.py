"""Which source a name means: its layout is found out, then its classes join their list."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from release.classes.class_list import load_classes
from release.errors import UserError
from release.real_sources.class_matching import join_list
from release.real_sources.folder import read_folder
from release.real_sources.hub import read_hub
from release.real_sources.idx import FASHION_MNIST_FOLDER, read_fashion_mnist
from release.real_sources.local import is_data_set, read_local
from release.real_sources.source import RealSource, SourceName
from release.real_sources.splitting import with_test_split
from release.real_sources.tars import is_archives, read_archives

FASHION_MNIST_HUB = "zalando-datasets/fashion_mnist"


@lru_cache(maxsize=2)
def open_source(name: str) -> RealSource:
    """`fashion-mnist`, a folder, or a data set of the Hub `org/name` or `org/name:config`.

    docs/real_data.md lists the layouts; `name` may carry options, see SourceName. Raises UserError
    with what to install, download or rename if the data is out of reach or in no such layout.
    """
    wanted = SourceName.parse(name)
    if wanted.name == "fashion-mnist":
        return _fashion_mnist(wanted)
    source = join_list(_read(wanted), wanted.classes_from)
    if not source.splits:
        reasons = "; ".join(source.remarks)
        raise UserError(f"nothing of {wanted.name} can be imported: {reasons}")
    if wanted.test_share is not None:
        return with_test_split(source, float(wanted.test_share), int(wanted.split_seed or 0))
    if source.splits.keys() == {"train"}:
        remark = (
            "train is the only split: scores and accuracies need another; --test-share 0.2 makes "
            "a fifth of it one"
        )
        return replace(source, remarks=(*source.remarks, remark))
    return source


def _read(wanted: SourceName) -> RealSource:
    path = Path(wanted.name)
    folder, _, config = wanted.name.rpartition(":")
    if folder and not path.is_dir() and Path(folder).is_dir():
        return read_local(Path(folder), config, wanted)
    if not path.is_dir():
        return read_hub(wanted, wanted.name.partition(":")[0].replace("/", "--"))
    archives = is_archives(path)
    if not archives and is_data_set(path):
        return read_local(path, None, wanted)
    if wanted.image_column or wanted.label_column:
        raise UserError(
            f"{path} is no table with columns: leave --image-column, --label-column out"
        )
    if archives:
        return read_archives(path)
    return read_folder(path, unsplit=wanted.test_share is not None)


def _fashion_mnist(wanted: SourceName) -> RealSource:
    if wanted != SourceName("fashion-mnist"):
        raise UserError(
            "--real fashion-mnist is as it is: name no columns, no class list and no --test-share"
        )
    if FASHION_MNIST_FOLDER.is_dir():
        return read_fashion_mnist()
    source = read_hub(SourceName(FASHION_MNIST_HUB), "fashion-mnist")
    return replace(source, classes=load_classes("fashion-mnist"))
