"""The error of a reading that found no document: why, as far as the report tells, and what to type next."""

from __future__ import annotations

from pathlib import Path

from chatsmith.errors import RequestError
from chatsmith.text.formats import UNKNOWN, readable
from chatsmith.text.plain import NOT_UTF8
from chatsmith.text.records import NO_TEXT_RECORD, UNDECIDED
from chatsmith.text.report import ReadReport, Skipped
from chatsmith.text.talks import HALF, LONE
from chatsmith.text.walk import MODEL, RUN


def nothing_found(paths: list[Path], report: ReadReport) -> RequestError:
    """The error for `paths`, with the reason where there is one."""
    where = ", ".join(map(str, paths[:3])) + (" …" if len(paths) > 3 else "")
    kinds = f"what is read: {readable()}"
    if not report.skipped:
        return RequestError(f"no document found in {where}: nothing is there", kinds)
    usual = report.reasons.most_common(1)[0][0]
    listed = [one for one in report.skipped if one.reason == usual] or report.skipped
    example = next((one for one in listed if one.detail), listed[0])
    hint = kinds if usual == UNKNOWN else _instead(report.skipped)
    if len(report.skipped) == 1:
        if example.detail == hint:
            example = Skipped(example.source, example.reason)
        return RequestError(f"no document found: {example}", hint)
    return RequestError(f"no document found in {where}: skipped {report.skipped_because()}; such as {example}", hint)


def _instead(skipped: list[Skipped]) -> str:
    """What to do where files of known kinds gave nothing."""
    for one in skipped:
        if one.reason.startswith(NOT_UTF8):
            return one.detail
        if one.reason in (NO_TEXT_RECORD, HALF, LONE, UNDECIDED):
            return "--field NAME reads the field of that name as text, whatever the record is"
        if one.reason in (MODEL, RUN):
            return "name the text that it was made of; to go on with a run: chatsmith train --resume FOLDER"
    return "name files or folders with text in them"
