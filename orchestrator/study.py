"""A study: sweeps that belong together, submitted by one name, and one page with what they found."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import page
from orchestrator.drawings import Drawing, drawn
from orchestrator.overrides import Override, parse
from workers import plugins
from workers.errors import ConfigError, UnknownName, nearest

if TYPE_CHECKING:
    from orchestrator.results import Results

__all__ = ["Attachment", "Section", "Study", "Table", "load", "names", "page_of"]

# what may be set for all sweeps of a study at once
SHARED = ("size", "launcher", "site", "resources", "budget")


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Rows under a heading; `name`: of its CSV file."""

    name: str
    heading: str
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Attachment:
    """A page of its own beside the report, such as an animation: its file name, what the link to it says, and its text."""

    name: str
    label: str
    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """A question of a study: what was found, in sentences that follow the numbers, with figures and tables."""

    title: str
    findings: Sequence[str] = ()
    drawings: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    attachments: Sequence[Attachment] = ()


Sections = Callable[[Mapping[str, "Results"]], Section]


@dataclass(frozen=True, kw_only=True)
class Study:
    """`sweeps`: files of conf/sweep with what each asks; `sections`: functions of the results by sweep file, of those that there are."""

    name: str
    title: str
    sweeps: Mapping[str, str]
    sections: Sequence[Sections]

    def submissions(self, settings: Sequence[str]) -> dict[str, list[str]]:
        """Sweep file -> the words of its submission; its name in the store tells sizes apart. ConfigError for other settings."""
        size = size_of(settings)
        return {one: [f"sweep={one}", f"name={sweep_name(one, size)}", *settings] for one in self.sweeps}


@dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """What was written: the HTML file, and the findings in it."""

    path: Path
    findings: Sequence[str] = field(default_factory=tuple)


def names() -> tuple[str, ...]:
    """The studies that there are, one file each in orchestrator/studies."""
    return plugins.names("studies", "orchestrator")


def load(name: str) -> Study:
    """The study of a file; UnknownName with the nearest."""
    if name not in names():
        raise UnknownName(f"no study {name!r}{nearest(name, names())} There are {', '.join(names())}")
    study: Study = importlib.import_module(f"orchestrator.studies.{name}").STUDY
    return study


def sweep_name(sweep: str, size: str) -> str:
    """The name in the store of a study's sweep."""
    return f"{sweep}_{size}" if size else sweep


def size_of(settings: Sequence[str]) -> str:
    """The word of `size=`; ConfigError for a setting that is not one of all sweeps."""
    from orchestrator.compose import one_word

    words = {word.key: word for word in parse(settings)}
    for key, word in words.items():
        if key.partition(".")[0] not in SHARED:
            raise ConfigError(
                f"a study takes settings of all its sweeps ({', '.join(f'{one}=' for one in SHARED)}), got {word.line!r}; other settings "
                "are given to one sweep by itself: eigensweep submit sweep=... name=..."
            )
    return one_word(words, "size")


def fitting(submissions: Mapping[str, list[str]], workloads_of: Callable[[list[str]], set[str]]) -> dict[str, list[str]]:
    """The words of each sweep without `resources.WORKLOAD` of workloads that others of the study have, and it has none of."""
    named = {word.line: name for words in submissions.values() for word in parse(words) if (name := _workload_of(word))}
    if not named:
        return dict(submissions)
    own = {sweep: workloads_of([word for word in words if word not in named]) for sweep, words in submissions.items()}
    known = set[str]().union(*own.values())
    return {
        sweep: [word for word in words if word not in named or named[word] in own[sweep] or named[word] not in known]
        for sweep, words in submissions.items()
    }


def _workload_of(word: Override) -> str:
    """The workload that resources are for; empty where they are for all, or the word is another."""
    group, _, path = word.key.partition(".")
    if group != "resources":
        return ""
    return path if isinstance(word.value, Mapping) else path.rpartition(".")[0]


def page_of(study: Study, results: Mapping[str, "Results"], folder: Path) -> Page:
    """Write `folder`/report.html with figures and tables beside it; a section that cannot be made yet is a note there."""
    folder.mkdir(parents=True, exist_ok=True)
    sections, notes = [], [f"no results yet of {one}" for one in study.sweeps if one not in results]
    for make in study.sections:
        try:
            sections.append(make(results))
        except ConfigError as error:
            notes.append(str(error))
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    body = [
        f'<h1>{escape(study.title)}</h1><p class="faint">Study <code>{escape(study.name)}</code>, written {now} by eigensweep</p>',
        page.warnings(notes),
        *(_section(section, folder) for section in sections),
        _sweeps(study, results),
    ]
    path = folder / "report.html"
    path.write_text(page.page(f"{study.title}: eigensweep", "\n".join(body)), encoding="utf-8")
    return Page(path=path, findings=[line for section in sections for line in section.findings])


def _section(section: Section, folder: Path) -> str:
    found = "".join(f"<li>{escape(line)}</li>" for line in section.findings)
    parts = [f"<h2>{escape(section.title)}</h2>", f"<ul>{found}</ul>" if found else "", page.warnings(section.notes)]
    parts += [drawn(section.drawings, folder)] if section.drawings else []
    parts += [_attached(section.attachments, folder)] if section.attachments else []
    parts += [_table(table, folder) for table in section.tables if table.rows]
    return "\n".join(part for part in parts if part)


def _attached(attachments: Sequence[Attachment], folder: Path) -> str:
    (folder / "pages").mkdir(exist_ok=True)
    for one in attachments:
        (folder / "pages" / one.name).write_text(one.text, encoding="utf-8")
    links = "".join(f'<li><a href="pages/{escape(one.name)}">{escape(one.label)}</a></li>' for one in attachments)
    return f"<p>Beside this page:</p><ul>{links}</ul>"


def _table(table: Table, folder: Path) -> str:
    import polars as pl

    (folder / "tables").mkdir(exist_ok=True)
    plain = [{name: value[1] if isinstance(value, tuple) else value for name, value in row.items()} for row in table.rows]
    frame = pl.DataFrame(plain, infer_schema_length=None)
    frame.write_csv(folder / "tables" / f"{table.name}.csv")
    link = page.download(f"{table.name}.csv", frame.write_csv(), "as CSV")
    return f'<h3>{escape(table.heading)}</h3>{page.table(table.rows)}<p class="faint">{link}</p>'


def _sweeps(study: Study, results: Mapping[str, "Results"]) -> str:
    rows = []
    for one, asks in study.sweeps.items():
        count = len(results[one].tasks().collect()) if one in results else 0
        name = results[one].name if one in results else ""
        rows.append({"sweep": one, "asks": asks, "name in the store": name, "tasks with results": count})
    return f"<h2>Sweeps</h2>{page.table(rows, wrapped=('asks',))}"
