"""What the clients' tests share: a run is short, and its page would take most of it."""

from __future__ import annotations

import pytest

from mm_metrics.render import page


@pytest.fixture(autouse=True)
def plain_page(monkeypatch):
    """The page's pictures have tests of their own; here it is only written."""
    monkeypatch.setattr(page, "write", lambda path, *args, **keywords: path.write_text("<html></html>"))
