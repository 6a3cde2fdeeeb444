"""Who gets what when providers fail, people connect nothing, or nobody defined the goal."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr

from causeway.apps.motify import explaining, ordering
from causeway.auth.webhooks import check_standard_webhook
from causeway.base.errors import Conflict, InvalidInput
from causeway.runtime.process import working
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.motify_chain import USDC, MotifyContract, people
from tests.glisk_app import until
from tests.motify_world import DAY, World, contributions, running_motify, worker
from tests.webhook_receiver import webhook_receiver

ANN, BOB, CYD, DOT = (one.address.lower() for one in people(4))


@pytest_asyncio.fixture
async def world(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[World]:
    """A Motify whose shares of failure differ from one another, and nobody at work yet."""
    contract = await MotifyContract.deploy(anvil)
    async with running_motify(
        database_url,
        anvil,
        contract,
        monkeypatch,
        worker=False,
        DEFAULT_PERCENT_PPM="700000",
        NO_CONNECTION_PERCENT_PPM="250000",
    ) as running:
        yield running


async def shares(world: World, challenge: int) -> dict[str, int]:
    """Return each wallet's share on chain, in basis points."""
    state = await world.contract.challenge(challenge)
    return {one.address.lower(): one.refund_bps for one in state.participants}


async def scores(world: World) -> dict[str, dict[str, object]]:
    """Return the scores by wallet."""
    rows = await world.rows("SELECT * FROM motify.scores")
    return {row["wallet"]: row for row in rows}


async def test_an_outage_waits_until_the_deadline_and_others_need_not(world: World) -> None:
    challenge, start, end = await world.challenge(
        {ANN: USDC, BOB: USDC, CYD: USDC}, api_type="GitHub ", goal_type="contribution-per-day"
    )
    await world.connect_github(ANN, "ann")
    await world.connect_github(BOB, "bob")
    world.sandbox.settings.github_contributions["ann"] = contributions(start, 6)
    world.sandbox.settings.github_revoked = ("bob",)
    await world.connect_wakatime(CYD, "waka_" + "0" * 20, "cyd")  # which is no GitHub account
    await world.travel_to(end)
    world.sandbox.fault("github", "status", status=502)
    async with working(world.installation):

        async def tried() -> bool:
            return {one["outcome"] for one in (await scores(world)).values()} >= {
                "unavailable",
                "no_connection",
            }

        await until(tried)
        await world.travel_to(end + 2 * DAY)
        await world.mine(3)
        assert await world.status(challenge) == "measuring"
        assert not (await world.rows("SELECT 1 FROM causeway.relayer_units"))
        # The provider is back before the deadline: Ann is measured, Bob is told apart.
        world.sandbox.clear_faults()
        await world.travel_to(end + 6 * DAY)
        await world.until_status(challenge, "archived", mining=True)
    assert await shares(world, challenge) == {ANN: 8571, BOB: 7000, CYD: 2500}
    reasons = {wallet: row["reason"] for wallet, row in (await scores(world)).items()}
    assert reasons == {ANN: None, BOB: "rejected", CYD: "no_connection"}


async def test_an_outage_that_lasts_is_decided_at_the_deadline_only(world: World) -> None:
    challenge, start, end = await world.challenge({ANN: USDC, BOB: USDC})
    await world.connect_github(ANN, "ann")
    await world.connect_wakatime(BOB, "waka_" + "1" * 20, "bob")
    world.sandbox.settings.github_contributions["ann"] = contributions(start, 7)
    other, _, _ = await world.challenge({CYD: USDC}, api_type="wakatime", goal_type="CODING_TIME")
    await world.travel_to(end + DAY)
    world.sandbox.fault("wakatime", "status", status=503)
    async with working(world.installation):
        await world.until_status(challenge, "archived", mining=True)
        assert await world.status(other) == "measuring"
    assert await shares(world, challenge) == {ANN: 10_000, BOB: 2500}


async def test_when_nobody_has_a_ratio_nothing_is_declared_below_the_whole(world: World) -> None:
    challenge, _, end = await world.challenge({ANN: USDC, BOB: USDC})
    await world.travel_to(end + DAY)
    async with working(world.installation):

        async def told() -> bool:
            found = await world.rows("SELECT kind FROM motify.incidents")
            return "progress_missing_for_all_participants" in {row["kind"] for row in found}

        await until(told)
        await world.travel_to(end + 6 * DAY + 60)
        await world.mine(5)
        waits = "SELECT last_error FROM motify.settlements"

        async def left_to_the_contract() -> bool:
            return "timeout refund" in ((await world.rows(waits))[0]["last_error"] or "")

        await until(left_to_the_contract, 30)
        assert await world.status(challenge) == "measuring"
    assert set((await shares(world, challenge)).values()) == {0}
    kinds = {row["kind"] for row in await world.rows("SELECT kind FROM motify.incidents")}
    assert {"deadline_72h", "deadline_24h"} <= kinds


async def test_a_goal_nobody_defined_waits_for_an_operator(world: World) -> None:
    challenge, start, end = await world.challenge({ANN: USDC}, goal_type="ISSUES_FIXED")
    await world.connect_github(ANN, "ann")
    world.sandbox.settings.github_contributions["ann"] = contributions(start, 7)
    await world.travel_to(end + DAY)
    async with working(world.installation):

        async def told() -> bool:
            return bool(await world.rows("SELECT 1 FROM motify.incidents WHERE kind='unscorable'"))

        await until(told)
        with pytest.raises(InvalidInput, match="can be measured"):
            await ordering.set_rule(world.ctx, challenge, by="eve", why="x", goal_type="LINES")
        await ordering.set_rule(
            world.ctx, challenge, by="eve", why="agreed with Ann", goal_type="CONTRIBUTION_PER_DAY"
        )
        await world.until_status(challenge, "archived", mining=True)
        with pytest.raises(Conflict):
            await ordering.set_rule(world.ctx, challenge, by="eve", why="x", ppm=0)
    assert await shares(world, challenge) == {ANN: 10_000}
    rule = (await world.rows("SELECT rule FROM motify.finished_challenges"))[0]["rule"]
    assert rule["ordered"]["by"] == "eve"


async def test_three_providers_are_counted_as_the_specification_says(world: World) -> None:
    wakers, casters = [ANN, BOB], [CYD, DOT]
    coding, start, _ = await world.challenge(
        dict.fromkeys(wakers, USDC), api_type="WakaTime", goal_type="CODING_TIME", goal_amount=2
    )
    casting, begin, end = await world.challenge(
        dict.fromkeys(casters, USDC), api_type="farcaster", goal_type="cast_per_day", goal_amount=2
    )
    settings = world.sandbox.settings
    for number, (wallet, seconds) in enumerate(zip(wakers, (7200.0, 1800.25), strict=True)):
        await world.connect_wakatime(wallet, f"waka_{number}" + "0" * 20, f"waker-{number}")
        day = datetime.fromtimestamp(start, UTC).date() + timedelta(days=number)
        settings.wakatime_seconds[f"waker-{number}"] = {day: seconds}
    first = datetime.fromtimestamp(begin, UTC)
    last = datetime.fromtimestamp(end, UTC)
    settings.neynar_accounts |= {CYD: (42, 7), DOT: (99,)}
    # Two a day for two days; one just before the start and one at the very end do not count.
    settings.neynar_casts[7] = (
        first - timedelta(seconds=1),
        *(first + timedelta(days=d, hours=h) for d in (0, 1) for h in (1, 23)),
        last - timedelta(seconds=1),
        last,
    )
    settings.neynar_casts[99] = tuple(first + timedelta(minutes=m) for m in range(400))
    await world.travel_to(end + DAY)
    async with working(world.installation):
        await world.until_status(coding, "archived", mining=True)
        await world.until_status(casting, "archived", mining=True)
    # 1800.25 s of two hours; two of seven days; one of seven, however many casts that day had.
    assert await shares(world, coding) == {ANN: 10_000, BOB: 2500}
    assert await shares(world, casting) == {CYD: 2857, DOT: 1429}


async def test_what_a_provider_forgets_was_read_in_time_and_late_work_is_told(
    world: World,
) -> None:
    challenge, start, end = await world.challenge(
        {ANN: USDC, BOB: USDC}, api_type="wakatime", goal_type="CODING_TIME", goal_amount=7
    )
    first = datetime.fromtimestamp(start, UTC).date()
    for name, wallet in (("ann", ANN), ("bob", BOB)):
        await world.connect_wakatime(wallet, "waka_" + name * 8, name)
        world.sandbox.settings.wakatime_seconds[name] = {
            first + timedelta(days=n): 3600.0 for n in range(7)
        }
    other, _, _ = await world.challenge({CYD: USDC})
    await world.connect_github(CYD, "cyd")
    world.sandbox.settings.github_contributions["cyd"] = contributions(start, 3)
    async with working(world.installation):
        for day in range(1, 8):
            await world.travel_to(start + day * DAY + 1200 - (day == 7) * 1200)

            async def read(n: int = day) -> bool:
                rows = await world.rows("SELECT count(*) AS n FROM motify.readings")
                return rows[0]["n"] >= 3 * n

            await until(read, 30)
            if day == 5:
                # From now on WakaTime knows nothing older; somebody dates work back.
                world.sandbox.settings.github_contributions["cyd"] |= contributions(start, 5)
                world.sandbox.settings.wakatime_seconds["bob"] = {
                    first + timedelta(days=n): 3600.0 for n in range(4, 7)
                }
        await world.travel_to(end + DAY)
        await world.until_status(challenge, "archived", mining=True)
        await world.until_status(other, "archived", mining=True)
    assert await shares(world, challenge) == {ANN: 10_000, BOB: 10_000}
    assert await shares(world, other) == {CYD: 7143}
    proved = await explaining.prove(world.ctx, other, CYD)
    lines = explaining.explain(proved)
    late = dict(lines)["backdated"].split(", ")
    assert late == [str(first + timedelta(days=n)) for n in (3, 4)]


async def test_a_higher_reading_in_grace_counts_and_a_lower_one_does_not(world: World) -> None:
    challenge, start, end = await world.challenge({ANN: USDC, BOB: USDC})
    settings = world.sandbox.settings
    for name, wallet, good in (("ann", ANN, 3), ("bob", BOB, 5)):
        await world.connect_github(wallet, name)
        settings.github_contributions[name] = contributions(start, good)
    await world.travel_to(end)
    async with working(world.installation):

        async def read() -> bool:
            return len(await world.rows("SELECT 1 FROM motify.readings")) == 2

        await until(read)
        settings.github_contributions["ann"] = contributions(start, 6)
        settings.github_contributions["bob"] = contributions(start, 1)
        await world.travel_to(end + DAY)
        await world.until_status(challenge, "archived", mining=True)
    assert await shares(world, challenge) == {ANN: 8571, BOB: 7143}


async def test_challenges_without_people_and_those_of_before_are_archived(world: World) -> None:
    empty, _, _ = await world.challenge({})
    old, _, end = await world.challenge({ANN: 10 * USDC, BOB: 30 * USDC})
    await world.travel_to(end)
    await world.contract.declare(old, {ANN: 4000, BOB: 10_000})
    await world.contract.finalize(old)
    await world.mine(3)
    async with working(world.installation):
        await world.until_status(empty, "archived", mining=True)
        await world.until_status(old, "archived", mining=True)
    rows = await world.rows(
        "SELECT participant_address AS w, percent_ppm, reason, stake_minor_units AS stake "
        "FROM motify.finished_participants ORDER BY stake"
    )
    assert [(row["w"], row["percent_ppm"], row["reason"]) for row in rows] == [
        (ANN, 400_000, "declared_elsewhere"),
        (BOB, 1_000_000, "declared_elsewhere"),
    ]
    done = await world.rows("SELECT challenge_id, summary FROM motify.finished_challenges")
    summaries = {int(row["challenge_id"]): row["summary"] for row in done}
    assert summaries[empty]["counts"] == {"participants": 0}
    assert summaries[old]["donation_minor_units"] == str(6 * USDC)
    assert not await world.rows("SELECT 1 FROM causeway.relayer_transactions")


async def test_what_anybody_may_write_into_a_challenge_harms_no_other(world: World) -> None:
    contract = world.contract
    start = (await contract.now() // DAY + 1) * DAY
    odd: dict[str, Any]
    for odd in (
        {"end_time": 2**256 - 1},
        {"end_time": 2**63 - 1, "goal_amount": 2**256 - 1},
        {"end_time": start + DAY, "goal_amount": 2**256 - 1, "name": "a\0b", "description": "\0"},
        {"end_time": start + DAY, "api_type": "x" * 5000, "goal_type": "\u202e'; DROP TABLE"},
        {"end_time": start + DAY, "api_type": "wakatime", "goal_type": "CODING_TIME"}
        | {"goal_amount": 2**256 - 1},
    ):
        made = await contract.create(recipient=contract.bank.address, start_time=start, **odd)
        await contract.fund([BOB], USDC)
        await contract.join(made, {BOB: USDC})
    await world.connect_wakatime(BOB, "waka_" + "7" * 20, "bob")
    await world.connect_github(BOB, "bob")
    await world.connect_github(ANN, "ann")
    challenge, begun, end = await world.challenge({ANN: USDC}, days=2)
    world.sandbox.settings.github_contributions["ann"] = contributions(begun, 1)
    await world.travel_to(end + DAY)
    async with working(world.installation):
        await world.until_status(challenge, "archived", mining=True)
        for number in (2, 4):  # whose goals can be measured, however far away they are
            await world.until_status(number, "archived", mining=True)
    assert await shares(world, challenge) == {ANN: 5000}
    assert [await world.status(n) for n in (0, 1, 3)] == ["live", "live", "measuring"]
    named = await world.rows("SELECT name FROM motify.chain_challenges WHERE challenge_id = 2")
    assert named == [{"name": "a\N{REPLACEMENT CHARACTER}b"}]


async def test_people_are_reminded_once_each_before_they_lose_money(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = await MotifyContract.deploy(anvil)
    secret = "whsec_" + base64.b64encode(b"a secret of the tests").decode()
    async with (
        webhook_receiver() as told,
        running_motify(
            database_url,
            anvil,
            contract,
            monkeypatch,
            worker=False,
            REMINDER_WEBHOOK_URL=told.url,
            REMINDER_WEBHOOK_SECRET=secret,
        ) as world,
    ):
        challenge, start, end = await world.challenge({ANN: USDC, BOB: USDC, CYD: USDC})
        for name, wallet in (("bob", BOB), ("cyd", CYD)):
            await world.connect_github(wallet, name)
        world.sandbox.settings.github_contributions["bob"] = contributions(start, 6)
        world.sandbox.settings.github_revoked = ("cyd",)

        async def heard(kind: str, wallet: str) -> None:
            async def condition() -> bool:
                return (kind, wallet) in told.heard()

            await until(condition, 30)

        async with worker() as victim:
            await world.mine(3)
            await heard("not_connected", ANN)
            await world.travel_to(start + 60)
            await heard("credentials_rejected", CYD)
            await world.travel_to(end - 3 * 3600)  # the seventh evening, with six days done
            await heard("behind_today", BOB)
            victim.kill()
        # Killed and started again: nobody is told twice.
        async with working(world.installation):
            await world.travel_to(end + DAY)
            await world.until_status(challenge, "archived", mining=True)
            await heard("result_declared", ANN)
            await heard("refund_claimable", BOB)
        assert max(Counter(told.heard()).values()) == 1
        assert ("not_connected", BOB) not in told.heard()
        for headers, body in told.deliveries:
            check_standard_webhook([SecretStr(secret)], headers, body, now=datetime.now(UTC))
