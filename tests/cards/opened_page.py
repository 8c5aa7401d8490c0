"""A page in headless Chromium, which asks for nothing and does not complain."""

from typing import Any

ALL_DRAWN = """[...document.querySelectorAll('.facet:not([hidden]) .chart')]
  .every(chart => chart.querySelector('svg path[aria-roledescription]'))"""


class opened:  # noqa: N801 - a context manager
    def __init__(self, browser: Any, address: str, width: int = 1600, scheme: str = "light"):
        self.page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
        self.address = address
        self.requests: list[str] = []
        self.complaints: list[str] = []

    def __enter__(self) -> Any:
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(self.address)
        self.page.wait_for_function(ALL_DRAWN)
        return self.page

    def __exit__(self, *_: object) -> None:
        self.page.close()
        assert self.complaints == []
        asked = [url for url in self.requests if not url.startswith("data:")]
        assert all(url.startswith(self.address) for url in asked)
