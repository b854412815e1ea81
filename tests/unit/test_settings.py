"""Settings: read once, every complaint at once."""

from __future__ import annotations

from dataclasses import fields

import pytest

from ipamd.settings import SETTINGS, Settings, SettingsError, read_settings, render_settings


def test_nothing_set_is_the_documented_default() -> None:
    settings = read_settings({"PATH": "/bin", "MAX_ENI": " "})
    assert settings == Settings()
    for setting in SETTINGS:
        assert getattr(settings, setting.field) == (setting.default or 0) or setting.default is None


def test_every_setting_is_a_field_and_every_field_a_setting() -> None:
    assert [s.field for s in SETTINGS] == [f.name for f in fields(Settings)]


def test_values_are_read() -> None:
    settings = read_settings({"WARM_IP_TARGET": "3", "MAX_ENI": "2", "IP_COOLDOWN_PERIOD": "0"})
    assert (settings.warm_ip_target, settings.max_eni, settings.cooldown_seconds) == (3, 2, 0)


def test_every_complaint_comes_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings({"WARM_ENI_TARGET": "-1", "MAX_ENI": "0", "MINIMUM_IP_TARGET": "many"})
    assert str(refused.value).splitlines() == [
        "WARM_ENI_TARGET=-1 is below 0 ENIs",
        "MINIMUM_IP_TARGET='many' is not a whole number of addresses",
        "MAX_ENI=0 is below 1 ENIs",
    ]


def test_the_reference_names_every_setting() -> None:
    page = "\n".join(render_settings())
    assert all(f"`{s.name}`" in page for s in SETTINGS)
