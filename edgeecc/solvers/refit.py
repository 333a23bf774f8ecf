"""The weights of a layer that reads fewer inputs, by least squares to what it gave when it read all.

With X what a layer reads, W its weights and S the inputs that stay,

    argmin over V, zero outside S, of   |X W - X V|^2 + ridge |W - V|^2

is the projection of W onto S in the norm of H = X'X + ridge I. All filters share S, so one factorisation serves
them. And where the sets that may stay are nested, one serves all of them: with the inputs ordered so that each set
comes first, H = L L', the leading block of L is the factor of any of them, and with T = L' W

    L[S, S]' V[S] = T[S]

is one triangular system for a width (ours). The ridge pulls towards W, so the error |X W - X V| is never above
that of W with the other inputs cut out, and weights of which the sample tells nothing stay as they are.
Source of the fit without an intercept on the original inputs: AMC (ECCV 2018), after He et al. 2017.

Everywhere d is inputs, o filters; all is float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from edgeecc.solvers.local_fit import RIDGE


@dataclass(frozen=True)
class Nested:
    """What fits a layer to each of a family of nested sets of inputs.

    Args:
        order: (d,) int64, inputs, those of the smallest set first.
        factor: L of the ordered H, (d, d), lower triangular.
        image: L' W of the ordered weights, (d, o).
    """

    order: torch.Tensor
    factor: torch.Tensor
    image: torch.Tensor

    @staticmethod
    def of(gram: torch.Tensor, weight: torch.Tensor, order: torch.Tensor) -> Nested:
        """Factorise once.

        Args:
            gram: X'X, (d, d).
            weight: W, (o, d).
            order: see the class.
        """
        factor = torch.linalg.cholesky(ridged(gram)[order][:, order])
        return Nested(order, factor, factor.mT @ weight.mT[order])

    def weights(self, count: int) -> torch.Tensor:
        """Return the weights, (o, d), that read the first `count` inputs of the order."""
        fitted = torch.zeros_like(self.image)
        block = self.factor[:count, :count].mT
        solved = torch.linalg.solve_triangular(block, self.image[:count], upper=True)
        fitted[self.order[:count]] = solved
        return fitted.mT


def refitted(gram: torch.Tensor, weight: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Return the weights, (o, d), that read any set of inputs.

    Args:
        gram: X'X, (d, d).
        weight: W, (o, d).
        kept: (d,) bool.
    """
    fitted = torch.zeros_like(weight)
    rows = ridged(gram)[kept]
    factor = torch.linalg.cholesky(rows[:, kept])
    fitted[:, kept] = torch.cholesky_solve(rows @ weight.mT, factor).mT
    return fitted


def ridged(gram: torch.Tensor) -> torch.Tensor:
    """Return H: the moments plus RIDGE times the mean second moment of an input on the diagonal."""
    mean = float(gram.diagonal().mean())
    ridge = RIDGE * mean if mean > 0.0 else 1.0
    return gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
