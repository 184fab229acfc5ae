"""The notebook in examples/ is what it says: executed, free of this machine's paths, small, and it runs again to the same numbers."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOK = EXAMPLES / "scaling_law.ipynb"


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def texts(cells: list[dict[str, Any]]) -> str:
    """All that the cells have printed or shown as text."""
    outputs = [output for cell in cells for output in cell["outputs"]]
    return "\n".join("".join(output.get("text") or output["data"].get("text/plain", "")) for output in outputs)


def images(cells: list[dict[str, Any]]) -> int:
    return sum("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"])


@pytest.fixture
def kept() -> list[dict[str, Any]]:
    return code_cells(json.loads(NOTEBOOK.read_text()))


def test_it_was_executed_from_top_to_bottom_without_an_error(kept):
    assert [cell["execution_count"] for cell in kept] == list(range(1, len(kept) + 1))
    kinds = {output["output_type"] for cell in kept for output in cell["outputs"]}
    assert kinds == {"stream", "display_data", "execute_result"}
    assert {output["name"] for cell in kept for output in cell["outputs"] if output["output_type"] == "stream"} == {"stdout"}


def test_it_ends_in_figures_and_in_fits_that_are_kept(kept):
    assert images(kept) == 3
    text = texts(kept)
    assert "chinchilla law of test_loss against num_params, train_size" in text and "without the largest tenth" in text
    assert text.rstrip().endswith("┘") and "│ power" in text


def test_it_names_no_place_of_the_machine_that_ran_it():
    text = NOTEBOOK.read_text()
    assert not re.search(r"(?<![\w.<:/])/(tmp|home|root|work|usr|var|opt|scratch|Users)\b", re.sub(r'"image/png": "[^"]*"', "", text))
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert "site-packages" not in text


def test_it_is_small():
    assert NOTEBOOK.stat().st_size < 300_000


def number_of(name: str, cells: list[dict[str, Any]]) -> float:
    found = re.search(rf"^{name} (\S+) \[", texts(cells), re.MULTILINE)
    assert found
    return float(found[1])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_runs_again_to_the_same_numbers(kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import nbformat
    from nbclient import NotebookClient

    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES.parent), *filter(None, [os.environ.get("PYTHONPATH")])]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in code_cells(notebook):
        cell["outputs"], cell["execution_count"] = [], None
    (tmp_path / "here").mkdir()
    NotebookClient(notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / "here")}}).execute()
    again = code_cells(notebook)
    assert [cell["execution_count"] for cell in again] == list(range(1, len(again) + 1))
    assert images(again) == images(kept)
    # another processor may round otherwise, and 300 steps of training make that a difference
    assert number_of("alpha", again) == pytest.approx(number_of("alpha", kept), rel=0.1)
    assert os.listdir(tmp_path / "here") == []
