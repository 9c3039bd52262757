import numpy as np
import pytest

from jgmm._saving.contents import Contents, Damaged

GIVEN = Contents(
    {"half": np.zeros(2, np.float16), "none": np.zeros((0, 2)), "x": np.zeros(2)},
    {"n": 3, "flag": True, "text": "a", "rows": [{"n": 1}], "empty": [], "mixed": [1]},
)


@pytest.mark.parametrize(
    ("take", "expected"),
    [
        (lambda c: c.array("y", 1), "y missing"),
        (lambda c: c.array("half", 1), "half is of type float16"),
        (lambda c: c.array("none", 2), "none has shape"),
        (lambda c: c.array("x", 2), r"x has shape \(2,\); it must have 2 axes"),
        (lambda c: c.floats("x", (3,)), r"x has shape \(2,\); it must have \(3,\)"),
        (lambda c: c.counts("x", (2,), 0, 9), "x is of type float64"),
        (lambda c: c.value("m", int), "m missing"),
        (lambda c: c.value("flag", int), "flag is not of type int"),
        (lambda c: c.count("n", 4), "n is out of range"),
        (lambda c: c.number("text"), "text is no number"),
        (lambda c: c.number("rows"), "rows is not of type"),
        (lambda c: c.parts("empty"), "empty is no list of tables"),
        (lambda c: c.parts("mixed"), "mixed is no list of tables"),
    ],
)
def test_what_is_not_as_it_must_be_is_named(take, expected):
    with pytest.raises(Damaged, match=expected):
        take(GIVEN)


def test_whole_numbers_are_bounded():
    contents = Contents({"n": np.asarray([0, 5], np.int32)}, {})
    assert contents.counts("n", (2,), 0, 6).tolist() == [0, 5]
    for low, high in ((1, 6), (0, 5)):
        with pytest.raises(Damaged, match="out of range"):
            contents.counts("n", (2,), low, high)


def test_parts_share_the_arrays():
    (part,) = GIVEN.parts("rows")
    assert part.count("n") == 1
    assert part.has("x")
