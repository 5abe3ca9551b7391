"""The parts of a README that commands write, between two marks."""

from __future__ import annotations

from harness.errors import UserError


def with_section(readme: str, what: str, by: str, content: str) -> str:
    """A README with what stands between the marks of `what` replaced. by: the command that writes it. UserError without marks."""
    start, end = f"<!-- {what}: written by {by} -->", f"<!-- end of {what} -->"
    before, found, rest = readme.partition(start)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise UserError(f"README.md: has no lines '{start}' and '{end}'; put them where {what} are to stand")
    return f"{before}{start}\n{content}\n{end}{after}"
