"""The MLflow face of a response model ("model from code"): raw rows in, one explained score per row out.

MLflow copies this file into the logged model and runs it to load; the answers come from `ResponseModel.predict`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from theracast_models.response_model import ResponseModel


class ResponsePyfunc(PythonModel):
    """Serves the response model that lies among the artefacts of the MLflow model."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the response model; a damaged folder is refused."""
        self.model = ResponseModel.load(Path(context.artifacts["response_model"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return one row per input row: the records of `score --json`."""
        return pd.DataFrame(self.model.predict(model_input).rows())


mlflow.models.set_model(ResponsePyfunc())
