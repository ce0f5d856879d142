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
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


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


def conda_packages() -> dict[str, str]:
    """Return the versions that environment.yml asks pip for."""
    dependencies = yaml.safe_load(ENVIRONMENT.read_text())["dependencies"]
    (lines,) = (entry["pip"] for entry in dependencies if isinstance(entry, dict))
    packages = {}
    for line in lines:
        line = line.partition(" #")[0].strip()
        if not line.startswith("-"):  # an option of pip's, such as --editable
            name, version = line.split("==")
            packages[canonicalize_name(name)] = version
    return packages


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


def test_conda_users_get_the_locked_versions():
    python = re.search(r"- python=(3\.\d+)", ENVIRONMENT.read_text())[1]
    assert python == "3.11"
    pins = locked(python)
    packages = conda_packages()
    assert packages, "environment.yml asks pip for nothing"
    for name, version in packages.items():
        assert pins.get(name) == version, name


def test_conda_users_get_every_declared_package():
    assert set(conda_packages()) == set(declared())


def test_conda_users_get_this_package_and_its_locked_dependencies():
    text = ENVIRONMENT.read_text()
    assert re.search(r"- (-e|--editable) \.", text)
    assert re.search(r"- (-c|--constraint) requirements\.lock", text)


def test_every_dependency_says_what_it_is_for():
    section = ENVIRONMENT.read_text().partition("dependencies:\n")[2]
    lines = [line for line in section.splitlines() if line.strip() and line.strip() != "- pip:"]
    assert len(lines) > 20
    for line in lines:
        if not line.lstrip().startswith("#"):
            assert re.search(r" # \w+", line), f"no comment says what this is for: {line.strip()}"
