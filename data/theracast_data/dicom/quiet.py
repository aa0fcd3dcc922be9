"""pydicom without its warnings: they quote values, and values do not belong in logs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import config


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Read and write values as they are, valid or not, and say nothing of them."""
    logger = logging.getLogger("pydicom")
    before = (config.settings.reading_validation_mode, config.settings.writing_validation_mode, logger.disabled)
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.settings.reading_validation_mode, config.settings.writing_validation_mode, logger.disabled = before
