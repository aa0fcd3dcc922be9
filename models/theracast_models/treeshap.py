"""Exact SHAP values of LightGBM's trees, the same as its `pred_contrib` and many times as fast.

Of a leaf, only the features on its path play. The row is on f's side of the path or it is not, and f's cover share z tells how
often a row is by chance. So the leaf's game, each player in with probability t, is the product of z (1 - t) + t for those on
their side and z (1 - t) for the others, and f's Shapley value is the integral over t in (0, 1) of the product's slope in f's
own probability: a polynomial, which Gauss-Legendre nodes, half as many as the path has features, integrate without error.
Every term is positive and every divisor at least t, so nothing cancels, however deep the tree. All leaves of a tree are done in
one walk down and back, as in Linear TreeSHAP, at a cost of splits x nodes.

Source: Lundberg et al., Nat Mach Intell 2020;2:56-67 (values weighted by the cover of paths); Yu et al., Linear TreeShap,
NeurIPS 2022, arXiv:2209.08192 (products in place of subsets); Owen, Management Science 1972;18:64-79 (the integral).
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from theracast_models.lightgbm_text import Floats, TextModel, read_lightgbm_text
from theracast_models.treeshap_kernels import FEW, ROWS, explain_alone, explain_blocks
from theracast_models.treeshap_paths import lay_out, mean_score


class TreeShap:
    """Explains one model; safe to share among threads.

    Attributes:
        base: the raw score's mean over the training rows, by cover, to which SHAP values add.
        features: how many columns a row has.
    """

    def __init__(self, model: TextModel) -> None:
        self.features = model.features
        self.base = mean_score(model)
        self._paths = lay_out(model)

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the explainer of a model in LightGBM's text.

        Raises:
            ArtifactError: the text is damaged, or its model gives several scores or has linear trees.
        """
        return cls(read_lightgbm_text(text))

    def values(self, X: Floats) -> Floats:
        """Return SHAP values (n, features) of rows X (n, features) in raw score; `base` and a row's values add up to its score.

        A row's values are the same bits alone and among others. Memory beside X and the answer does not grow with n.
        """
        if X.ndim != 2 or X.shape[1] != self.features:
            raise ValueError(f"X has the shape {X.shape}; the model reads rows of {self.features} columns.")
        phi = np.zeros((len(X), self.features))
        if len(self._paths.splits):
            X = np.ascontiguousarray(X, dtype=np.float64)
            # Each is compiled, or read from numba's cache, only where it is called: a service of single rows has half to load.
            spare = len(X) % ROWS
            whole = len(X) - spare if spare <= FEW else len(X)
            if whole:
                explain_blocks(X[:whole], phi[:whole], *self._arguments())
            if whole < len(X):
                explain_alone(X[whole:], phi[whole:], *self._arguments())
        return phi

    def _arguments(self) -> tuple[Any, ...]:
        paths = self._paths
        arrays = (paths.features, paths.splits, paths.trees, paths.rule, paths.inverse, paths.set_words)
        return (*arrays, paths.deepest, paths.most_nodes)
