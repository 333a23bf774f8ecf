"""Settings of methods from text."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from edgeecc.config import EccConfig
from edgeecc.ecc_forms import OWN, refuse_unread
from edgeecc.errors import ConfigError
from edgeecc.peer_config import HalpConfig, NoSettings, with_settings

pytestmark = pytest.mark.device


def test_values_are_read_by_the_type_of_their_field() -> None:
    made = with_settings(EccConfig(), ["rho1=2.5", " warmup = 7 ", "metric=adam"])
    assert made == EccConfig(rho1=2.5, warmup=7, metric="adam")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rho1", "write name=value, names are beta"),
        ("rho9=1", "names are beta"),
        ("warmup=1.5", "no whole number"),
        ("rho1=x", "no number"),
        ("metric=magic", "none of taylor, adam"),
        ("rho1=-1", "must be positive"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_settings(EccConfig(), [text])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rounds=0", "rounds 0 must be at least 1"),
        ("grain=0", "grain 0 must be at least 1"),
        ("pace=-1", "pace -1 must be at least 0"),
        ("interval=-1", "interval -1 and pace 0 must be at least 0"),
        ("course=straight", "none of load, reducible"),
    ],
)
def test_what_halp_cannot_do_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_settings(HalpConfig(), [text])


def test_a_method_without_settings_says_so() -> None:
    with pytest.raises(ConfigError, match="names are none"):
        with_settings(NoSettings(), ["a=1"])


def test_every_setting_of_ecc_is_of_one_form() -> None:
    own = [name for names in OWN.values() for name in names]
    assert sorted(["metric", *own]) == sorted(field.name for field in fields(EccConfig))


@pytest.mark.parametrize("form", ["adam", "taylor"])
def test_a_setting_of_the_other_form_is_refused_unless_it_is_the_default(form: str) -> None:
    config = EccConfig(metric=form)
    refuse_unread(config)
    for name in (name for names in OWN.values() for name in names):
        default = getattr(config, name)
        other = replace(
            config, **{name: not default if isinstance(default, bool) else default / 2 or 1}
        )
        if name in OWN[form]:
            refuse_unread(other)
        else:
            with pytest.raises(
                ConfigError, match=f"^{name} is a setting .* metric {form} does not"
            ):
                refuse_unread(other)
