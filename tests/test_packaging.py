"""What is declared, pinned and shipped agree."""

import re
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())
PINS = [line for line in (HERE / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> list[str]:
    project = PROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.match(r"[\w.-]+", requirement).group() for group in groups for requirement in group}  # type: ignore[union-attr]
    return sorted(canonical(name) for name in names if name != "eigensweep")


def test_pins_are_exact_and_name_no_place() -> None:
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in PINS)


@pytest.mark.parametrize("name", declared())
def test_every_dependency_is_pinned(name: str) -> None:
    assert name in {canonical(pin.partition("==")[0]) for pin in PINS}


def test_pinned_versions_satisfy_the_declared_ranges() -> None:
    from packaging.requirements import Requirement

    versions = {canonical(name): version for name, _, version in (pin.partition("==") for pin in PINS)}
    project = PROJECT["project"]
    for text in [*project["dependencies"], *(one for group in project["optional-dependencies"].values() for one in group)]:
        requirement = Requirement(text)
        if requirement.name != "eigensweep":
            assert requirement.specifier.contains(versions[canonical(requirement.name)]), text


def test_one_version_everywhere() -> None:
    import eigensweep

    version = PROJECT["project"]["version"]
    assert eigensweep.__version__ == version
    assert f"## {version}" in (HERE / "CHANGELOG.md").read_text()


def test_the_targets_that_the_readme_and_ci_use_exist() -> None:
    makefile = (HERE / "Makefile").read_text()
    for target in ("setup", "demo", "test", "test-all", "lint", "bench", "docs", "clean"):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_readme_shows_only_commands_that_the_grammar_accepts() -> None:
    import shlex

    from orchestrator import cli, usage

    lines = re.findall(r"^    (?:.*&& )?(eigensweep .*)$", (HERE / "README.md").read_text(), re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        name, rest = cli.take_verb(shlex.split(line, comments=True)[1:])
        parsed = usage.parser_of(name).parse_intermixed_args(rest)
        assert usage.sort(name, parsed.words), line
