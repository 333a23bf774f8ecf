"""From measured samples to a profile: the recipe of the cost model, its fit, and its error on held-out samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Dict, List, Optional, Sequence

import numpy as np

from edgeecc.config import CalibrateConfig, FitMethod, MeasureProtocol
from edgeecc.cost.choose import Recipe, Tried, choose
from edgeecc.cost.design import Sampling
from edgeecc.cost.fit import fit, heldout_error
from edgeecc.cost.forms import Form
from edgeecc.cost.product import ProductModel
from edgeecc.cost.profile import Profile
from edgeecc.cost.rows import as_arrays, parted
from edgeecc.cost.samples import DENSE, THINNEST, Row
from edgeecc.cost.stopping import upper_mean
from edgeecc.graph.spec import FloatArray, NetworkSpec
from edgeecc.units import Metric


@dataclass(frozen=True)
class Fitted:
    """What a round of samples says.

    Args:
        profile: the cost model with its error.
        tried: recipes that were tried for it, the taken one first; none where the user named it.
        upper_error: what the mean held-out error is at most, with 95 % confidence.
    """

    profile: Profile
    tried: Sequence[Tried]
    upper_error: float


@dataclass(frozen=True)
class Fitting:
    """How samples become a profile.

    Args:
        spec: the network.
        device: where it was measured.
        metric: what was measured.
        config: see `CalibrateConfig`.
        protocol: how a sample was measured.
        like: cost model of another profile of this network, to fit towards.
    """

    spec: NetworkSpec
    device: str
    metric: Metric
    config: CalibrateConfig
    protocol: MeasureProtocol
    like: Optional[ProductModel] = None

    def __call__(self, rows: Sequence[Row], sampling: Sampling, meter: str) -> Fitted:
        """Fit the samples that are not held out, and judge by those that are.

        Args:
            rows: samples and anchors; of each kind at least one.
            sampling: says which are held out.
            meter: of their values.
        """
        (known, told), (held, truth) = map(as_arrays, parted(rows, sampling.is_held_out))
        tried = self._tried(known, told, meter)
        recipe = tried[0].recipe if tried else Recipe(self._form() or Form(), self._fits()[0])
        model = self._fit(recipe, known, told, meter)
        ratios = truth / model.predict_many(held)
        anchors = {row.number: row.value for row in rows if row.number < 0}
        profile = Profile(
            network=self.spec.network,
            device=self.device,
            fingerprint=self.spec.fingerprint(),
            model=model,
            form=recipe.form.text,
            fit=recipe.fit,
            meter=meter,
            heldout=heldout_error(model, held, truth),
            ratios=tuple(sorted(ratios.tolist())),
            samples={"train": len(told), "heldout": len(truth)},
            seed=self.config.seed,
            design=self.config.design,
            target_error=self.config.target_error or None,
            protocol=asdict(self.protocol),
            anchors={"dense": anchors[DENSE], "thinnest": anchors[THINNEST]},
        )
        return Fitted(profile, tried, upper_mean(np.abs(1.0 / ratios - 1.0)))

    def _fits(self) -> Sequence[FitMethod]:
        """Return the fits to choose among, the plainest first."""
        if self.config.fit != "auto":
            return (self.config.fit,)
        return ("work", "nnls") if self.like is None else ("like", "work", "nnls")

    def _tried(self, known: FloatArray, told: FloatArray, meter: str) -> List[Tried]:
        """Return the recipes that cross-validation judged, none where there is but one."""

        def predict(
            recipe: Recipe, at: FloatArray, values: FloatArray, wanted: FloatArray
        ) -> FloatArray:
            return self._fit(recipe, at, values, meter).predict_many(wanted)

        if len(told) < 2 or (self._form() is not None and len(self._fits()) == 1):
            return []
        return choose(
            self.spec, known, told, predict=predict, seed=self.config.seed, fits=self._fits(), form=self._form()
        )  # fmt: skip

    def _form(self) -> Optional[Form]:
        """Return the only form to try; None tries all."""
        return None if self.config.model == "auto" else Form.parse(self.config.model)

    def _fit(
        self, recipe: Recipe, widths: FloatArray, values: FloatArray, meter: str
    ) -> ProductModel:
        return fit(
            self.spec, widths, values, form=recipe.form, method=recipe.fit, meter=meter, metric=self.metric,
            like=self.like,
        )  # fmt: skip


def recipes_told(tried: Sequence[Tried]) -> List[Dict[str, object]]:
    """Return recipes as `edgeecc calibrate --json` prints them."""
    return [
        {
            "model": one.recipe.form.text,
            "fit": one.recipe.fit,
            "terms": one.terms,
            "error": one.error,
            "standard_error": one.standard_error,
            "level": one.level,
        }
        for one in tried
    ]
