"""What a loaded model is, expects and knows about its development cohort, as plain JSON and small look-ups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from theracast_data.sources import OneHotSpec
from theracast_features.specs import FeatureSpec
from theracast_models.response_model import ResponseModel
