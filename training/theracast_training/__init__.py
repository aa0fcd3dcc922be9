"""Split, tune, fit, evaluate, report and register: from a study to a validated model in the registry."""

from theracast_data.home import prepare_mlflow

prepare_mlflow()  # before any module of this package imports mlflow
