"""Dask's dashboard, for a scheduler of this machine: its pages come with the first look at one."""

from typing import Any

from distributed import Scheduler
from tornado.web import Application


class DashboardWhenAsked(Application):  # type: ignore[misc]
    """Stands in for the dashboard until a browser asks for it.

    Its imports, bokeh above all, take half a second before the first worker starts, and hardly
    any build is looked at.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def find_handler(self, request: Any, **kwargs: Any) -> Any:
        """That of the page that is asked for; the dashboard takes this one's place."""
        from distributed.dashboard.scheduler import connect

        pages = self._scheduler.http_application
        pages.applications.remove(self)
        connect(pages, self._scheduler.http_server, self._scheduler)
        return pages.find_handler(request, **kwargs)
