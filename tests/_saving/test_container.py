import numpy as np
import pytest
import safetensors.numpy

from jgmm._core.errors import UserError
from jgmm._saving import container


def test_arrays_and_description_come_back(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays = {"one": np.asarray(3), "turned": np.arange(6.0).reshape(2, 3).T}
    container.write(path, arrays, {"a": [1, None, "é"]})
    found, description = container.read(path)
    assert description == {"a": [1, None, "é"]}
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)
    before = path.read_bytes()
    container.write(path, arrays, {"a": [1, None, "é"]})
    assert path.read_bytes() == before


def test_a_number_that_json_does_not_have_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        container.write(tmp_path / "a.safetensors", {"x": np.zeros(1)}, {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "metadata", [None, {}, {"jgmm": "no"}, {"jgmm": "[1]"}, {"jgmm": "[" * 9999}]
)
def test_a_file_of_something_else_has_no_description(tmp_path, metadata):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors.numpy.save({"a": np.zeros(2)}, metadata))
    assert container.read(path)[1] == {}


def test_a_header_of_any_length_is_survived(tmp_path):
    path = tmp_path / "a.safetensors"
    container.write(path, {"x": np.zeros(1)}, {})
    content = path.read_bytes()
    for size in (0, 1, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1):
        path.write_bytes(size.to_bytes(8, "little") + content[8:])
        with pytest.raises(UserError, match="not a whole safetensors file"):
            container.read(path)


def test_a_missing_package_is_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"need safetensors: pip install"):
        container.read(tmp_path / "a.safetensors")
