"""What Dask says that nobody needs to hear."""

from __future__ import annotations

import logging

import pytest

from edgeecc.fleet import dispatch


def test_waits_that_dask_forgot_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """These are told when they are collected, which may be after everything has ended."""
    with dispatch._quiet():
        pass
    logger = logging.getLogger("asyncio")
    logger.error("Task exception was never retrieved\nfuture: <Task finished exception=AllExit()>")
    logger.error("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]
