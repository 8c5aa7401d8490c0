"""Dask's dashboard is served once somebody looks, and not made before."""

from urllib.error import HTTPError
from urllib.request import urlopen

import dask
import pytest

from builder.cluster.cluster import SETTINGS, _start_cluster
from builder.cluster.dashboard import DashboardWhenAsked


def test_pages_are_made_when_a_browser_asks_for_one():
    with dask.config.set(SETTINGS), _start_cluster([]) as cluster:
        pages = cluster.scheduler.http_application
        assert [type(page) for page in pages.applications] == [DashboardWhenAsked]
        assert cluster.dashboard_link.endswith("/status")
        for _ in range(2):
            with urlopen(cluster.dashboard_link) as answer:
                assert b"bokeh" in answer.read()
        assert [type(page).__name__ for page in pages.applications] == ["DaskBokehTornado"]
        with urlopen(cluster.dashboard_link.replace("status", "workers")) as answer:
            assert answer.status == 200
        with pytest.raises(HTTPError):
            urlopen(cluster.dashboard_link.replace("status", "no-such-page"))
