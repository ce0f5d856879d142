"""pyproject.toml and requirements.lock describe one environment."""

from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PLATFORMS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
    "mac": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
    "windows": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"},
}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_the_lock_pins_every_dependency_within_its_range(python, platform):
    place = {**default_environment(), **PLATFORMS[platform]}
    place |= {"python_version": python, "python_full_version": f"{python}.9"}
    pins: dict[str, str] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        requirement = Requirement(line.strip())  # an option of pip's, or a URL, would not parse
        (pin,) = requirement.specifier
        assert pin.operator == "==" and not requirement.url, line
        if requirement.marker is None or requirement.marker.evaluate(place):
            assert canonicalize_name(requirement.name) not in pins, f"{line} is pinned twice"
            pins[canonicalize_name(requirement.name)] = pin.version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = sum(project["optional-dependencies"].values(), project["dependencies"])
    for requirement in map(Requirement, lines):
        name = canonicalize_name(requirement.name)
        if name != "spectral-hyperresolution":  # from its folder, which no index has
            assert requirement.specifier.contains(pins[name]), (name, pins[name])
