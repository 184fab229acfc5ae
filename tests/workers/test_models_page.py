"""The page on models says what is: its examples run, and it names every model."""

from pathlib import Path

from torch.testing import assert_close

from workers import entk, plugins

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_every_example_of_the_page_runs():
    lines = [line[4:] for line in PAGE.read_text().splitlines() if line.startswith("    ")]
    names: dict[str, object] = {}
    exec("\n".join(lines), names)
    assert (names["count"], names["non_embedding"]) == (6_738_415_616, 6_476_271_616)
    assert (names["found"].num_units, names["found"].num_clusters) == (8 * 16, 8)
    assert names["traced"].shape == (32, 32)
    full = entk.gram(names["model"], names["torch"].tensor([[0, 3, 1]])).view(3, 5, 3, 5)
    assert_close(names["of_others"], full.diagonal(dim1=1, dim2=3).mean(-1))


def test_the_page_names_every_model():
    assert not {name for name in plugins.names("models") if f"| `{name}` |" not in PAGE.read_text()}
