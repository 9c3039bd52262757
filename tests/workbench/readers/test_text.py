"""Text is decoded and cleaned in blocks of any size as if it were one."""

import gzip

import pytest
from workbench.readers.data_files import write_csv

from jgmm._core.errors import UserError
from jgmm.workbench.readers import text
from jgmm.workbench.readers.text import Cleaning, open_text, readable
from jgmm.workbench.runs import memory

LINES = ["sep= ", "# x  y", '  "a  b"  1 ', "2\t3", "# end", "4  5"]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_blocks_are_whole_lines(tmp_path, monkeypatch, size, newline, encoding):
    monkeypatch.setattr(text, "BLOCK_CHARACTERS", size)
    path = write_csv(tmp_path, gzip.compress(newline.join(LINES).encode(encoding)))
    file = open_text("here", path, None)
    assert file.sample == LINES
    source = readable(file, Cleaning(skip=1, comment="#", blanks=True))
    parts = []
    while part := source.read(5):
        assert len(part) <= 5
        parts.append(part)
    assert b"".join(parts).splitlines() == [b'"a  b"\t1', b"2\t3", b"4\t5"]


def test_a_plain_file_is_left_to_arrow(tmp_path):
    path = write_csv(tmp_path, "a,b\n1,2\n")
    assert readable(open_text("here", path, None), Cleaning()) == path


def test_text_that_grows_beyond_memory_is_refused(tmp_path, monkeypatch):
    path = write_csv(tmp_path, gzip.compress(b"1,2\n" * 200_000))
    monkeypatch.setattr(text, "BLOCK_CHARACTERS", 1000)
    monkeypatch.setenv(memory.VARIABLE, "0.001")
    with pytest.raises(UserError, match="memory"):
        readable(open_text("here", path, None), Cleaning(), guard_memory=True).read()


def test_a_file_that_is_no_archive_has_no_parts(tmp_path):
    with pytest.raises(UserError, match="no archive"):
        open_text("here", write_csv(tmp_path, "a\n1\n"), "part")
