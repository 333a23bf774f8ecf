"""A profile: the cost model of one network on one device, and how it came to be."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

from edgeecc.artifacts import number, read_json, write_json
from edgeecc.cost.conformal import Margin, margin_of
from edgeecc.cost.fit import HeldoutError
from edgeecc.cost.product import ProductModel
from edgeecc.cost.terms import spec_groups
from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.graph.spec import NetworkSpec
from edgeecc.units import Metric

SCHEMA = "edgeecc/profile/1"
#: Ratios that a file may hold.
MAX_RATIOS = 1_000_000


@dataclass(frozen=True)
class Profile:
    """What calibration leaves behind.

    Args:
        network, device: names.
        fingerprint: of the spec that was measured; a profile fits no other network.
        model: the fitted model.
        form: of the model, see `forms.Form`.
        fit: see `CalibrateConfig`; "like" is towards another profile; or who fitted it.
        meter: meter of the samples.
        heldout: error on held-out samples; None where the source gives none.
        ratios: of measured to predicted on these, rising; none where the source gives none.
        samples: {"train": n, "heldout": m}.
        seed: of widths.
        design: how widths that were fitted were chosen; empty where nobody says.
        target_error: mean relative held-out error that was asked for; None where all samples were, or nobody says.
        protocol: how a sample was measured.
        anchors: measured cost of the dense and the thinnest network, which no fit saw.
        note: where a published profile comes from.
        boards: name -> {"samples", "offset", "standard_error"} of each board of a fleet; the offset is relative, was
            divided out before the fit, and its error is a share.
    """

    network: str
    device: str
    fingerprint: str
    model: ProductModel
    form: str
    fit: str
    meter: str
    heldout: Optional[HeldoutError]
    samples: Mapping[str, int]
    seed: int = 0
    protocol: Mapping[str, object] = field(default_factory=dict)
    anchors: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    ratios: Tuple[float, ...] = ()
    design: str = ""
    target_error: Optional[float] = None
    boards: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def metric(self) -> Metric:
        """What the model predicts."""
        return self.model.metric

    def margin(self, confidence: Optional[float] = None) -> Margin:
        """Return what to hold off a budget so that a measurement holds it with a confidence, see `margin_of`.

        Where a profile keeps no ratios it is the 95th percentile of the held-out error, 0 where none is known.

        Raises: ConfigError when the held-out samples cannot tell the confidence that is asked for.
        """
        if self.ratios:
            return margin_of(self.ratios, confidence)
        if confidence is not None:
            raise ConfigError(
                f"the profile of {self.network} on {self.device} keeps no held-out samples, so it tells no confidence; "
                "give --margin, or calibrate again"
            )
        return Margin(self.heldout.p95 if self.heldout is not None else 0.0)

    def fits(self, spec: NetworkSpec) -> bool:
        """Return whether this is a profile of `spec`."""
        return self.fingerprint == spec.fingerprint()

    def cost_for(self, spec: NetworkSpec) -> ProductModel:
        """Return the cost model, for this network alone.

        Raises: ArtifactError when the profile belongs to another network.
        """
        if not self.fits(spec) or list(self.model.groups) != spec_groups(spec):
            mine = f"{self.network} with {len(self.model.groups)} groups, {self.fingerprint}"
            yours = f"{spec.network} with {len(spec.prunable)} groups, {spec.fingerprint()}"
            raise ArtifactError(
                f"this profile is of another network ({mine}; yours is {yours}); run edgeecc calibrate"
            )
        return self.model

    def layer_costs(self) -> Dict[str, float]:
        """Return term name -> cost when dense; linear terms are named `width:GROUP`."""
        return {term.name: float(a) for term, a in zip(self.model.terms, self.model.coefficients)}

    def board_lines(self) -> List[str]:
        """Return a line of text for each board."""
        return [
            f"- Board {name or '(no fleet)'}: {int(told['samples'])} samples, offset {told['offset']:.4f} "
            f"+- {told['standard_error']:.4f}, divided out."
            for name, told in self.boards.items()
        ]

    def to_json(self) -> Dict[str, object]:
        """Return what profile.json holds."""
        body = {key: value for key, value in vars(self).items() if key not in ("model", "heldout")}
        heldout = None if self.heldout is None else asdict(self.heldout)
        return {**body, "heldout_error": heldout, "model": self.model.to_json()}

    def save(self, path: Path) -> None:
        """Write profile.json."""
        write_json(path, SCHEMA, self.to_json())

    @staticmethod
    def load(path: Path) -> Profile:
        """Read profile.json, which may come from anywhere.

        Raises: ArtifactError when it is missing or damaged.
        """
        data = read_json(path, SCHEMA)
        model = data.get("model")
        if not isinstance(model, dict):
            raise ArtifactError(f"{path} holds no cost model; the file is damaged, calibrate again")
        return Profile(
            network=_text(data, "network", path),
            device=_text(data, "device", path),
            fingerprint=_text(data, "fingerprint", path),
            model=ProductModel.from_json(model, path),
            form=_text(data, "form", path),
            fit=_text(data, "fit", path),
            meter=_text(data, "meter", path),
            heldout=_heldout(data.get("heldout_error"), path),
            samples={
                key: int(number(n, key, path)) for key, n in _mapping(data, "samples", path).items()
            },
            seed=int(number(data.get("seed"), "seed", path)),
            protocol=_mapping(data, "protocol", path),
            anchors={
                key: number(x, key, path) for key, x in _mapping(data, "anchors", path).items()
            },
            note=_text(data, "note", path),
            ratios=_ratios(data.get("ratios", []), path),
            design=_text({"design": "", **data}, "design", path),
            target_error=_optional(data, "target_error", path),
            boards=_boards(data.get("boards", {}), path),
        )


def _text(data: Mapping[str, object], key: str, path: Path) -> str:
    value = data.get(key)
    if not isinstance(value, str):
        raise ArtifactError(
            f"{key} in {path} must be text, found {value!r}; the file is damaged, calibrate again"
        )
    return value


def _mapping(data: Mapping[str, object], key: str, path: Path) -> Dict[str, object]:
    value = data.get(key)
    if not isinstance(value, dict):
        raise ArtifactError(
            f"{key} in {path} must be an object; the file is damaged, calibrate again"
        )
    return value


def _optional(data: Mapping[str, object], key: str, path: Path) -> Optional[float]:
    value = data.get(key)
    return None if value is None else number(value, key, path)


def _heldout(value: object, path: Path) -> Optional[HeldoutError]:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ArtifactError(
            f"heldout_error in {path} must be an object; the file is damaged, calibrate again"
        )
    return HeldoutError(
        *(number(value.get(key), f"heldout_error {key}", path) for key in ("mean", "p95", "max"))
    )


def _ratios(value: object, path: Path) -> Tuple[float, ...]:
    if not isinstance(value, list) or len(value) > MAX_RATIOS:
        raise ArtifactError(
            f"ratios in {path} must be a list of numbers; the file is damaged, calibrate again"
        )
    ratios = tuple(sorted(number(one, "a ratio", path) for one in value))
    if ratios and ratios[0] <= 0.0:
        raise ArtifactError(
            f"ratios in {path} must be positive, found {ratios[0]}; the file is damaged, calibrate again"
        )
    return ratios


def _boards(value: object, path: Path) -> Dict[str, Dict[str, float]]:
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
        raise ArtifactError(
            f"boards in {path} must be an object of objects; the file is damaged, calibrate again"
        )
    keys = ("samples", "offset", "standard_error")
    return {
        name: {key: number(one.get(key), f"{key} of board {name}", path) for key in keys}
        for name, one in value.items()
    }
