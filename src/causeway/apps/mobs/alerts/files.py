"""Rules as a file: written the same for the same rules, compared, and put into force.

A rule is known by its name, contracts by their addresses, so that a file fits any database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson
from pydantic import Field, TypeAdapter, ValidationError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from causeway.apps.mobs.alerts import channels
from causeway.apps.mobs.alerts.evaluator import end_episodes
from causeway.apps.mobs.alerts.notices import plain
from causeway.apps.mobs.alerts.rules import ANOTHER_RULE, check
from causeway.apps.mobs.schemas import NewAlert
from causeway.base.errors import InvalidInput

FIELDS = (
    *("name", "description", "alert_type", "conditions", "threshold", "window_minutes"),
    *("cooldown_minutes", "for_minutes", "severity", "no_data", "is_enabled", "channels"),
)


class Rule(NewAlert):
    """A rule in a file."""

    is_enabled: bool = True
    contracts: list[str] = Field(default=[], max_length=1000)


_RULES = TypeAdapter(list[Rule])


@dataclass(frozen=True)
class Difference:
    """What a file would change."""

    added: list[str]
    removed: list[str]
    #: By name: field, what is there, what the file says.
    changed: dict[str, list[tuple[str, Any, Any]]]

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.added or self.removed or self.changed)


def read(content: bytes) -> list[dict[str, Any]]:
    """Return the rules of a file, whole; `InvalidInput` says which field of which is wrong."""
    try:
        parsed = _RULES.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InvalidInput(f"{place}: {first['msg']}") from None
    rules: list[dict[str, Any]] = []
    for one in parsed:
        check(one.alert_type, one.conditions)
        rule = one.model_dump(exclude={"contract_ids"})
        rule["channels"] = channels.kept(rule["channels"], ())
        rule["threshold"] = plain(one.threshold)
        rule["contracts"] = sorted(address.lower() for address in one.contracts)
        rules.append(rule)
    _only_once([rule["name"] for rule in rules], "the file")
    return rules


def _only_once(names: Sequence[str], where: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"{where} has two rules named {twice!r}; rules are known by their names")


def written(rules: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rules as a file, the same for the same rules."""
    ordered = sorted((dict(rule) for rule in rules), key=lambda rule: str(rule["name"]))
    return orjson.dumps(ordered, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


async def stored(session: AsyncSession) -> list[dict[str, Any]]:
    """Return the rules in force, as a file has them."""
    found = await session.execute(
        text(
            "SELECT a.*, ARRAY(SELECT '0x' || encode(c.address, 'hex') FROM mobs.contracts AS c "
            "WHERE c.id = ANY(a.contract_ids) ORDER BY 1) AS contracts "
            "FROM mobs.alerts AS a ORDER BY name, id"
        )
    )
    return [
        {name: row[name] for name in FIELDS}
        | {"threshold": plain(row["threshold"]), "contracts": list(row["contracts"])}
        for row in found.mappings()
    ]


def compare(here: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> Difference:
    """Return what would change if the wanted rules were in force."""
    before = {str(rule["name"]): rule for rule in here}
    after = {str(rule["name"]): rule for rule in wanted}
    changed: dict[str, list[tuple[str, Any, Any]]] = {}
    for name in sorted(before.keys() & after.keys()):
        fields = [
            (field, before[name][field], value)
            for field, value in after[name].items()
            if before[name][field] != value
        ]
        if fields:
            changed[name] = fields
    return Difference(
        sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys()), changed
    )


async def apply(session: AsyncSession, wanted: Sequence[Mapping[str, Any]], now: int) -> Difference:
    """Have exactly these rules, in this transaction; those that stay keep their events.

    Raises `InvalidInput` for a contract that is not watched, and where names are not unique.
    """
    here = await stored(session)
    _only_once([rule["name"] for rule in here], "the database")
    difference = compare(here, wanted)
    by_name = {str(rule["name"]): rule for rule in wanted}
    for name in difference.removed:
        await session.execute(text("DELETE FROM mobs.alerts WHERE name = :name"), {"name": name})
    for name in difference.added:
        values = await _values(session, by_name[name])
        await session.execute(
            text(
                f"INSERT INTO mobs.alerts ({', '.join(values)}) "
                f"VALUES ({', '.join(_written(one) for one in values)})"
            ),
            values,
        )
    for name, fields in difference.changed.items():
        found = await session.execute(
            text("SELECT * FROM mobs.alerts WHERE name = :name FOR UPDATE"), {"name": name}
        )
        rule = {str(k): v for k, v in found.mappings().one().items()}
        changed = {field for field, _, _ in fields}
        if "is_enabled" in changed and rule["is_enabled"]:
            await end_episodes(session, rule, now, "disabled")
        elif changed & (ANOTHER_RULE | {"contracts", "alert_type"}):
            await end_episodes(session, rule, now, "rule_changed")
        values = await _values(session, by_name[name])
        await session.execute(
            text(
                f"UPDATE mobs.alerts SET updated_at = :now, "
                f"{', '.join(f'{one} = {_written(one)}' for one in values)} WHERE name = :name"
            ),
            values | {"now": now},
        )
    return difference


def _written(name: str) -> str:
    return f"CAST(:{name} AS jsonb)" if name in ("conditions", "channels") else f":{name}"


async def _values(session: AsyncSession, rule: Mapping[str, Any]) -> dict[str, Any]:
    ids: list[int] = []
    for address in rule["contracts"]:
        number = await session.scalar(
            text("SELECT id FROM mobs.contracts WHERE '0x' || encode(address, 'hex') = :address"),
            {"address": address},
        )
        if number is None:
            raise InvalidInput(f"{rule['name']}: {address} is not watched; add the contract first")
        ids.append(int(number))
    return {name: rule[name] for name in FIELDS} | {
        "threshold": Decimal(rule["threshold"]),
        "conditions": orjson.dumps(rule["conditions"]).decode(),
        "channels": orjson.dumps(rule["channels"]).decode(),
        "contract_ids": ids,
    }


async def whole(session: AsyncSession, rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return a rule of a file as a row of the table, to be tried without being stored."""
    values = await _values(session, rule)
    return values | {"id": 0, "conditions": rule["conditions"], "channels": rule["channels"]}
