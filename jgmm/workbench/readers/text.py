"""Text of data files: decompressed, decoded to UTF-8, and without comments, line by line.

Compression is recognised by the first bytes of a file, not by its name. Nothing is ever unpacked to
the disk.
"""

import codecs
import contextlib
import io
import lzma
import pathlib
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jgmm._core.errors import suggest
from jgmm.workbench.readers.tables import fail, need, reason
from jgmm.workbench.runs import memory

SAMPLE_BYTES = 1 << 18
"""Bytes at the beginning of a file from which its encoding, separator and so on are guessed."""

BLOCK_CHARACTERS = 1 << 20
"""Characters that are decoded at once."""

TEXT_SUFFIXES = (".tsv", ".tab", ".txt", ".dat", ".data")
"""Suffixes of files of delimited text, in addition to .csv."""
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip")

_ARROW_CODECS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
_XZ, _ZIP = b"\xfd7zXZ\x00", b"PK"
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x19\x1b-\x1f\x7f]")
_ENCODINGS = {"utf-16": "UTF-16", "utf-16-le": "UTF-16", "utf-16-be": "UTF-16"}


@dataclass(frozen=True)
class TextFile:
    """A file of text, of which only the beginning has been read.

    Attributes:
      where: the file, for messages.
      path: the file.
      part: the name of a member, if the file is an archive.
      compression: "gzip", "bz2", "zstd", "xz", "zip", or "" for none.
      encoding: the name of a codec of Python.
      sample: the whole lines at the beginning; all lines of a short file.
      is_whole: whether the sample is the whole file.
    """

    where: str
    path: pathlib.Path
    part: str | None
    compression: str
    encoding: str
    sample: list[str]
    is_whole: bool

    def told(self) -> list[str]:
        """Say what is not as in most files."""
        if self.encoding in ("utf-8", "utf-8-sig"):
            return []
        return [_ENCODINGS.get(self.encoding, "Latin-1")]


def open_text(where: str, path: pathlib.Path, part: str | None, latin: bool = False) -> TextFile:
    """Find out how a file is compressed and encoded.

    Args:
      where: the name of the file in messages.
      path: the file.
      part: the name of a member of an archive; it may be None if the archive has one.
      latin: whether the text is known not to be UTF-8.

    Raises:
      UserError: the file is no text, or an archive that does not hold one file of text.
    """
    with path.open("rb") as file:
        start = file.read(6)
    codec = next((name for magic, name in _ARROW_CODECS.items() if start.startswith(magic)), "")
    codec = "xz" if start == _XZ else "zip" if start.startswith(_ZIP) else codec
    if codec == "zip":
        part = _member(where, path, part)
    elif part is not None:
        fail(where, f"the file is no archive with a part {part!r}.", "Leave the part out.")
    with _damaged(where, codec), _open_binary(path, codec, part) as binary:
        head = _read_up_to(binary, SAMPLE_BYTES)
    is_whole = len(head) < SAMPLE_BYTES
    encoding = _encoding(head, is_whole, latin)
    text = _decoded(where, head, encoding, is_whole)
    # A name may hold what a terminal would obey, but text is not full of it.
    if "\0" in text or len(_CONTROLS.findall(text)) > 0.2 * len(text):
        fail(where, "this is no text, by the bytes that it holds.", _NO_TEXT)
    lines = re.split(r"\r\n|\n|\r", text.removeprefix("\ufeff"))
    if not is_whole and len(lines) > 1:
        lines.pop()
    return TextFile(where, path, part, codec, encoding, lines, is_whole)


_NO_TEXT = "Give the file the suffix of its format, or write it as text."


@contextlib.contextmanager
def _damaged(where: str, codec: str) -> Iterator[None]:
    """Turn the exceptions of a decompressor into a ``UserError``."""
    try:
        yield
    except (lzma.LZMAError, zipfile.BadZipFile, EOFError, OSError, RuntimeError) as error:
        if not codec or (isinstance(error, OSError) and error.errno is not None):
            raise
        what = f"the file is damaged, or compressed in an unknown way ({reason(error)})."
        fail(where, what, "Write it or copy it again.")


def _open_binary(path: pathlib.Path, codec: str, part: str | None) -> Any:
    if codec == "zip":
        with zipfile.ZipFile(path) as archive:
            return archive.open(part or "")
    if codec == "xz":
        return lzma.open(path)
    if codec:
        arrow = need("pyarrow", "workbench", "a compressed file")
        return arrow.input_stream(str(path), compression=codec)
    return path.open("rb")


def _read_up_to(binary: Any, size: int) -> bytes:
    content = b""
    while len(content) < size and (block := binary.read(size - len(content))):
        content += block
    return content


def _member(where: str, path: pathlib.Path, part: str | None) -> str:
    """Return the name of the file of text in an archive."""
    with _damaged(where, "zip"), zipfile.ZipFile(path) as archive:
        every = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    if "[Content_Types].xml" in every:
        fail(where, "this is an Excel workbook.", "Give it the suffix .xlsx.")
    names = [name for name in every if not name.startswith("__MACOSX/")]
    texts = [name for name in names if name.lower().endswith((".csv", *TEXT_SUFFIXES))]
    if part is not None and part not in names:
        ask = suggest(part, names, n=3)
        listed = f"The archive holds: {', '.join(names[:10])}."
        fail(where, f"there is no {part!r} in the archive.{ask}", listed)
    if part is None and len(texts) != 1:
        what = f"the archive holds {len(texts)} files of text: {', '.join(texts[:10])}."
        what = what if texts else "the archive holds no file of text."
        fail(where, what, f"Name one: {path.name}:{texts[0]}." if texts else "Take the file out.")
    return texts[0] if part is None else part


def _encoding(head: bytes, is_whole: bool, latin: bool) -> str:
    for mark, name in _BOMS.items():
        if head.startswith(mark):
            return name
    if len(head) >= 4 and head[1::2].count(0) > 0.4 * len(head[1::2]) > head[::2].count(0):
        return "utf-16-le"
    if len(head) >= 4 and head[::2].count(0) > 0.4 * len(head[::2]) > head[1::2].count(0):
        return "utf-16-be"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, is_whole)
    except UnicodeDecodeError:
        latin = True
    if not latin:
        return "utf-8"
    # The code page of Windows holds what Latin-1 leaves out, but not every byte has a meaning.
    return "latin-1" if re.search(rb"[\x81\x8d\x8f\x90\x9d]", head) else "cp1252"


def _decoded(where: str, content: bytes, encoding: str, is_whole: bool) -> str:
    try:
        return codecs.getincrementaldecoder(encoding)().decode(content, is_whole)
    except UnicodeDecodeError as error:
        fail(where, f"the text cannot be decoded ({error}).", "Save it in UTF-8.")


@dataclass(frozen=True)
class Cleaning:
    """What has to be done to the lines of a file before they are read as a table.

    Attributes:
      skip: the number of lines at the beginning that are left out.
      comment: the character with which comment lines begin, or "".
      blanks: whether values are separated by blanks, which one tab then replaces.
    """

    skip: int = 0
    comment: str = ""
    blanks: bool = False

    def clean(self, text: str) -> str:
        """Leave comments out of whole lines of text, and replace the blanks between values."""
        if self.comment:
            text = re.sub(rf"(?m)^[ \t]*{re.escape(self.comment)}.*\n?", "", text)
        if self.blanks:
            text = re.sub(r"(?m)^[ \t]+|[ \t]+$", "", text)
            if '"' in text:
                text = re.sub(r'("[^"]*")|[ \t]+', lambda m: m[1] or "\t", text)
            else:
                text = re.sub(r"[ \t]+", "\t", text)
        return text


def readable(file: TextFile, cleaning: Cleaning, guard_memory: bool = False) -> Any:
    """Return what Arrow reads a file from: its path where nothing has to be done to its text.

    Args:
      file: the file.
      cleaning: what has to be done.
      guard_memory: refuse more text than there is memory for, which the size of a compressed file
        does not tell.
    """
    if cleaning == Cleaning() and not file.compression and file.encoding in ("utf-8", "utf-8-sig"):
        return file.path
    return _Blocks(_blocks(file, cleaning, guard_memory))


def _blocks(file: TextFile, cleaning: Cleaning, guard_memory: bool) -> Iterator[bytes]:
    """Yield whole lines in UTF-8, cleaned."""
    with (
        _damaged(file.where, file.compression),
        _open_binary(file.path, file.compression, file.part) as binary,
        io.TextIOWrapper(_buffered(binary), file.encoding, newline=None) as text,
    ):
        for _ in range(cleaning.skip):
            text.readline()
        total = 0
        rest = ""
        while block := text.read(BLOCK_CHARACTERS):
            total += len(block)
            if guard_memory:
                memory.require(4 * total, file.where)
            lines, newline, rest = (rest + block).rpartition("\n")
            yield cleaning.clean(lines + newline).encode("utf-8")
        yield cleaning.clean(rest).encode("utf-8")


def _buffered(binary: Any) -> Any:
    """Return a file with the methods that a decoder needs; those of Arrow lack some."""
    return binary if hasattr(binary, "read1") else io.BufferedReader(_Raw(binary))


class _Raw(io.RawIOBase):
    def __init__(self, source: Any) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._source.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


class _Blocks(io.RawIOBase):
    """Blocks of bytes as a file that can be read from."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._rest = blocks, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        parts, length = [self._rest], len(self._rest)
        while size < 0 or length < size:
            block = next(self._blocks, None)
            if block is None:
                break
            parts.append(block)
            length += len(block)
        content = b"".join(parts)
        end = length if size < 0 else min(size, length)
        self._rest = content[end:]
        return content[:end]
