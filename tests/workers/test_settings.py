"""Settings that hold keys and values."""

from dataclasses import dataclass
from typing import Any

import pytest

from workers.errors import ConfigError
from workers.settings import Settings, setting


@dataclass(frozen=True, kw_only=True)
class Shelf(Settings):
    any: dict[str, Any] | None = None
    numbers: dict[str, int] | None = setting(None, low=1)
    label: str = ""


def test_keys_and_values_read_back():
    shelf = Shelf(any={"a": [1, (2, "x")], "b": {"c": None, "d": True}}, numbers={"n": 2.0})
    assert shelf.any == {"a": [1, [2, "x"]], "b": {"c": None, "d": True}}
    assert type(shelf.numbers["n"]) is int  # type: ignore[index]
    assert Shelf.from_plain(shelf.to_plain()) == shelf


def test_a_text_of_digits_may_be_given_as_a_whole_number():
    assert Shelf(label=17) == Shelf(label="17")  # type: ignore[arg-type]
    for other in (1.5, True, [1]):
        with pytest.raises(ConfigError, match="label must be a text, got"):
            Shelf(label=other)  # type: ignore[arg-type]


def test_what_was_given_may_change_without_the_setting():
    given = {"a": 1}
    shelf = Shelf(any=given)
    given["a"] = 2
    assert shelf.any == {"a": 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"any": "a=b"}, "any must be keys and values, as in {key: value} or null, got 'a=b'"),
        ({"any": {1: 2}}, "any must have texts as keys, got 1; put it in quotes"),
        ({"any": {"a": {"b": object}}}, "any.a.b must be a text, a number, true, false, a list or keys and values, got"),
        ({"any": {"a": [float("nan")]}}, r"any.a\[0\] must be a finite number, got nan"),
        ({"numbers": {"n": "x"}}, "numbers.n must be a whole number, got 'x'"),
        ({"numbers": {"n": 0}}, "numbers must be at least 1, got 0"),
    ],
)
def test_other_values_are_refused(given: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        Shelf.from_plain(given)
