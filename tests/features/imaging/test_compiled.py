"""Compiled loops where numba finds no folder for its cache, as in a container whose file system is read-only."""

from __future__ import annotations

import logging

import pytest
from numba.core import caching

from theracast_features.imaging import compiled as module


def halved(x: float) -> float:
    return x / 2


@pytest.mark.parametrize("way", [module.compiled, module.inlined])
def test_runs_without_a_cache_and_says_so_once(way, monkeypatch, caplog) -> None:
    monkeypatch.setattr(caching.CompileResultCacheImpl, "_locator_classes", [])
    module._tell_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert way(halved)(3.0) == 1.5
        assert way(halved)(5.0) == 2.5
    (record,) = caplog.records
    assert "Set NUMBA_CACHE_DIR to a folder" in record.message


def test_keeps_code_where_it_can(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        assert module.compiled(halved)(3.0) == 1.5
    assert not caplog.records
