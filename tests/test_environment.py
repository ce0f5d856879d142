"""pyproject.toml, requirements.lock and environment.yml describe one environment."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / "environment.yml"
PLATFORMS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
    "mac": {
        "sys_platform": "darwin",
        "platform_system": "Darwin",
        "os_name": "posix",
        "platform_machine": "arm64",
    },
    "windows": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"},
}
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def declared() -> dict[str, Requirement]:
    """Return what pyproject.toml asks for, extras and all, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project.get("optional-dependencies", {})
    lines = [*project["dependencies"], *(line for extra in extras.values() for line in extra)]
    declared = {canonicalize_name(r.name): r for r in map(Requirement, lines)}
    del declared["spectral-hyperresolution"]  # from its folder, which no index has
    return declared


def lock_lines() -> list[str]:
    lines = (line.strip() for line in (ROOT / "requirements.lock").read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def locked(python: str, platform: str = "linux") -> dict[str, str]:
    """Return the version of every package of the lock on one Python and one system."""
    place = {**default_environment(), **PLATFORMS[platform]}
    place |= {"python_version": python, "python_full_version": f"{python}.9"}
    versions: dict[str, str] = {}
    for requirement in map(Requirement, lock_lines()):
        if requirement.marker is None or requirement.marker.evaluate(place):
            (pin,) = requirement.specifier
            assert pin.operator == "==", requirement
            name = canonicalize_name(requirement.name)
            assert name not in versions, f"{name} is pinned twice"
            versions[name] = pin.version
    return versions


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_pins_every_dependency_within_its_range(python, platform):
    pins = locked(python, platform)
    for name, requirement in declared().items():
        assert name in pins, f"{name} is in pyproject.toml and not in requirements.lock"
        assert requirement.specifier.contains(pins[name]), (name, pins[name])


def test_every_line_of_the_lock_is_an_exact_pin():
    for line in lock_lines():
        requirement = Requirement(line)  # an option of pip's would not parse
        assert not requirement.url
        assert [pin.operator for pin in requirement.specifier] == ["=="], line


@pytest.mark.parametrize("name", ["requirements.lock", "environment.yml", "pyproject.toml"])
def test_no_file_names_a_package_index(name):
    text = (ROOT / name).read_text()
    for word in ("index-url", "find-links", "trusted-host", "://", "--hash"):
        assert word not in text, f"{name} holds {word}"


def test_conda_users_get_the_locked_versions_and_both_packages():
    dependencies = yaml.safe_load(ENVIRONMENT.read_text())["dependencies"]
    assert "python=3.11" in dependencies
    (lines,) = (entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert lines == [
        "--requirement requirements.lock",
        "--editable ./spectral-hyperresolution",
        "--editable .",
    ]


def test_every_dependency_says_what_it_is_for():
    text = (ROOT / "pyproject.toml").read_text()
    section = text.partition("\ndependencies = [")[2].partition("[project.scripts]")[0]
    lines = [line.strip() for line in section.splitlines() if "=" in line or '"' in line]
    assert len(lines) > 20
    for line in lines:
        if not line.endswith("["):
            assert re.search(r"  # .*\w+", line), f"no comment says what this is for: {line}"
