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


def test_no_logger_of_dask_speaks_and_each_has_its_level_again() -> None:
    """Also those that Dask gives a level of their own, which that of the logger above them does not reach."""
    pytest.importorskip("distributed")
    names = ["distributed.client", "distributed.worker", "tornado.application", "asyncio"]
    before = [logging.getLogger(name).level for name in names]
    assert logging.getLogger("tornado.application").isEnabledFor(logging.ERROR)
    with dispatch._quiet():
        assert not any(logging.getLogger(name).isEnabledFor(logging.ERROR) for name in names)
    assert [logging.getLogger(name).level for name in names] == before
