"""The text of a file of the user's, whatever program wrote it, and the JSON in it: packed or not, UTF-8 or UTF-16."""

import codecs
import gzip
import io
import json
import zlib
from typing import Any

MAX_UNPACKED = 2**31  # bytes that a packed file may become
GZIP = b"\x1f\x8b"
FOREIGN = {  # the first bytes of a file: what it is, and what to do
    b"PK\x03\x04": "a zip archive; unpack it, or pack it by gzip (an Excel workbook: save it as csv)",
    b"BZh": "packed by bzip2; unpack it, or pack it by gzip",
    b"\xfd7zXZ": "packed by xz; unpack it, or pack it by gzip",
    b"(\xb5/\xfd": "packed by zstd; unpack it, or pack it by gzip",
    b"\x93NUMPY": "a NumPy array; save it as csv or parquet",
    b"\x80\x04": "a pickle, which can hold code and is not opened; save it as csv or parquet",
    b"\x80\x05": "a pickle, which can hold code and is not opened; save it as csv or parquet",
    b"FEA1": "a Feather file of version 1; save it as version 2 or as parquet",
    b"version https://git-lfs": "a pointer of Git LFS and not the file; fetch that with `git lfs pull`",
    b"<!DOCTYPE": "a web page and not the file that it shows; download that one",
    b"<html": "a web page and not the file that it shows; download that one",
}
LONGEST_MARK = max(map(len, FOREIGN))
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def unpack(data: bytes) -> bytes:
    """The bytes of a file without their packing. Raises ValueError for a damaged, too large or foreign one."""
    for magic, kind in FOREIGN.items():
        if data.startswith(magic):
            raise ValueError(f"is {kind}")
    if not data.startswith(GZIP):
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            unpacked = stream.read(MAX_UNPACKED)
    except (zlib.error, OSError, EOFError) as error:
        raise ValueError(f"is cut short or damaged: it cannot be unpacked ({error})") from error
    if len(unpacked) == MAX_UNPACKED:
        raise ValueError(f"unpacks to more than {MAX_UNPACKED:,} bytes; unpack it yourself")
    return unpacked


def decode(data: bytes, is_whole: bool = True) -> str:
    """The text of bytes; of the first bytes of a file, unless they are all. Raises ValueError naming the line."""
    encoding = next((encoding for mark, encoding in MARKS.items() if data.startswith(mark)), "utf-8")
    if encoding != "utf-16" and b"\0" in data:
        raise ValueError(f"is no text, parquet or Arrow file: it has a zero byte at position {data.index(0)}")
    try:
        return codecs.getincrementaldecoder(encoding)().decode(data, final=is_whole)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"is not {encoding.upper()} text in line {line} ({error.reason}); save it as UTF-8") from error


def parse_json(text: str) -> Any:
    """What JSON says.

    Raises:
        ValueError: in one line; no JSON, nested too deeply, a name given twice in an object, half of a character.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_repetition)
        if "\\ud" in text.lower():  # a pair of these is a character, one alone is no text, and cannot be written
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError(f"it holds {error.object[error.start]!r}, half of a character") from error
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is given twice in one object")
    return row
