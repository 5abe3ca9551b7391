"""Download a file so that what came is never lost: kept as `<name>.part`, and gone on with the next time."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from harness.data.progress import Progress

CONNECT_TIMEOUT = 5  # seconds: blocked sites are common, and there is another way
READ_TIMEOUT = 60
CHUNK = 1 << 13  # at most so many bytes that came are lost when a transfer breaks off


def download(url: str, target: Path, what: str, progress: Progress) -> None:
    """Download `url` to `target`, going on with `<target>.part` where the server can; nothing is done where it is there.

    what: told to `progress` with the bytes. Raises OSError in one line that names the URL; what came until then is kept.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    part = target.with_name(f"{target.name}.part")
    had = _size(part)
    try:
        pooch.retrieve(
            url,
            known_hash=None,  # the contents are checked: the sites publish no checksums that we could record
            path=target.parent,
            fname=target.name,
            downloader=lambda url, output, _: _resume(url, part, output, what, progress),
        )
    except requests.RequestException as error:
        lost = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
        if isinstance(error, lost):
            reason = "broke off" if _size(part) != had else "cannot be reached"
        else:
            reason = " ".join(str(error).split(" for url: ")[0].split())
        raise OSError(f"{url}: {reason}") from error


def _resume(url: str, part: Path, output: Any, what: str, progress: Progress) -> None:
    """Get what `part` lacks, then move it to `output`."""
    import requests

    have = _size(part)
    headers = {"Accept-Encoding": "identity"}  # bytes of the file, so that their number is a place in it
    wanted = headers | ({"Range": f"bytes={have}-"} if have else {})
    response = requests.get(url, headers=wanted, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
    place = re.match(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if have and (response.status_code == 416 or (response.status_code == 206 and (not place or int(place[1]) != have))):
        response.close()  # not the file that was begun, or no more of it: from the start
        response = requests.get(url, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
    with response:
        response.raise_for_status()
        if response.status_code != 206:
            have = 0
        total = have + int(response.headers.get("Content-Length", 0))
        with open(part, "r+b" if have else "wb") as file:
            file.seek(have)
            progress(what, have, total, "B")
            for chunk in response.iter_content(CHUNK):
                file.write(chunk)
                have += len(chunk)
                progress(what, have, total, "B")
    if have < total:  # some servers end a transfer early without an error
        raise requests.ConnectionError("ended early")
    os.replace(part, output)


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
