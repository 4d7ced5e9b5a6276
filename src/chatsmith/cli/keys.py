"""`chatsmith keys`"""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from cyclopts import Parameter

from chatsmith.cli.console import out, print_json, say
from chatsmith.cli.options import Json
from chatsmith.errors import RequestError


def keys(
    action: Annotated[Literal["new", "list", "remove"], Parameter(help="What to do.")],
    name: Annotated[str, Parameter(help="The name of the key: who or what it is for.")] = "",
    /,
    *,
    json: Json = False,
) -> None:
    """Make, list and remove the keys that open a server to others.

    A new key is shown once; only its hash is kept. A key that is removed opens nothing from then on, also where a
    server is running.
    """
    from chatsmith.serve.keys import Keys
    from chatsmith.tables import Column, Table

    kept = Keys()
    if action == "list":
        rows = [{"name": key.name, "ends_in": key.end, "made": _day(key.made)} for key in kept.all()]
        if json:
            print_json(rows)
            return
        columns = (Column("name", "left"), Column("ends in", "left"), Column("made", "left"))
        out().print(Table("keys", columns, tuple(tuple(row.values()) for row in rows)).rich())
        return
    if not name:
        raise RequestError(f"a name is needed, to know the key by: chatsmith keys {action} NAME")
    if action == "new":
        key = kept.new(name)
        if json:
            print_json({"name": name, "key": key})
            return
        print(key)
        say("keep it: it is not shown again")
        return
    kept.remove(name)
    say(f"the key {name!r} opens nothing any more")


def _day(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")
