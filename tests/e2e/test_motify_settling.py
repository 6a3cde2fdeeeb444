"""From the end of a challenge to its archive: real chain, real providers' wire, real database."""

from __future__ import annotations

import pytest

from causeway.runtime.process import working
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.motify_chain import USDC, MotifyContract, people
from causeway.store.encryption import new_key
from tests.glisk_app import until
from tests.motify_world import DAY, contributions, running_motify


async def test_the_worked_example_is_paid_to_the_last_unit(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = await MotifyContract.deploy(anvil)
    ann, bob, cyd = (one.address for one in people(3))
    recipient = "0x" + "ee" * 20
    async with running_motify(database_url, anvil, contract, monkeypatch) as world:
        challenge, start, end = await world.challenge(
            {ann: 100 * USDC, bob: 50 * USDC, cyd: 25 * USDC}, days=5, recipient=recipient
        )
        for wallet, login, good in ((ann, "ann", 5), (bob, "bob", 4), (cyd, "cyd", 0)):
            await world.connect_github(wallet, login)
            world.sandbox.settings.github_contributions[login] = contributions(start, good)
        await world.travel_to(start)
        await world.until_status(challenge, "live")
        await world.travel_to(end)
        await world.until_status(challenge, "measuring")
        await world.travel_to(end + DAY)
        await world.until_status(challenge, "declaring")
        await world.until_status(challenge, "archived", mining=True)
        state = await contract.challenge(challenge)
        assert [one.refund_bps for one in state.participants] == [10_000, 8_000, 0]
        await contract.claim(challenge, [ann, bob])
        paid = await contract.usdc_of([ann, bob, cyd, recipient])
        # Each was given 100 before staking.
        assert paid == {ann: 100 * USDC, bob: 90 * USDC, cyd: 75 * USDC, recipient: 31_500_000}


async def test_a_joining_that_is_reorganised_away_is_forgotten_with_what_was_read_of_it(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = await MotifyContract.deploy(anvil)
    ann, bob = (one.address.lower() for one in people(2))
    async with running_motify(database_url, anvil, contract, monkeypatch) as world:
        challenge, _, _ = await world.challenge({ann: USDC})
        await contract.fund([bob], USDC)
        await world.mine(3)
        height = await anvil.height()
        await contract.join(challenge, {bob: USDC})

        async def staked() -> set[tuple[str, int]]:
            rows = await world.rows(
                "SELECT participant_address AS w, initial_amount AS a "
                "FROM motify.chain_participants"
            )
            return {(row["w"], int(row["a"] or 0)) for row in rows}

        async def both() -> bool:
            return await staked() == {(ann, USDC), (bob, USDC)}

        await until(both)
        await anvil.rollback(await anvil.height() - height)
        await world.mine(6)

        async def one() -> bool:
            return await staked() == {(ann, USDC)}

        await until(one)
        counted = "SELECT participant_count AS n, read_block FROM motify.chain_challenges"

        async def read_again() -> bool:
            row = (await world.rows(counted))[0]
            return row["n"] == 1 and row["read_block"] is not None

        await until(read_again)


async def test_challenges_of_another_contract_are_not_taken_for_those_of_this_one(
    database_url: str, anvil: AnvilNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key()
    old, new = await MotifyContract.deploy(anvil), await MotifyContract.deploy(anvil)
    ann, bob = (one.address.lower() for one in people(2))
    async with running_motify(
        database_url, anvil, old, monkeypatch, worker=False, CAUSEWAY_ENCRYPTION_KEYS=key
    ) as world:
        before, start, end = await world.challenge({ann: USDC, bob: 3 * USDC})
        await world.connect_github(ann, "ann")
        world.sandbox.settings.github_contributions["ann"] = contributions(start, 1)
        async with working(world.installation):
            await world.travel_to(start)
            await world.until_status(before, "live")
    await old.travel_to(end - 30 * 60)
    async with running_motify(
        database_url, anvil, new, monkeypatch, worker=False, CAUSEWAY_ENCRYPTION_KEYS=key
    ) as world:
        after, start, _ = await world.challenge({ann: 2 * USDC, bob: 2 * USDC}, days=1)
        assert after == before
        await world.connect_github(bob, "bob")
        world.sandbox.settings.github_contributions["bob"] = contributions(start, 1)
        async with working(world.installation):
            await world.travel_to(start + 2 * DAY)
            mine = (
                "SELECT status FROM motify.settlements WHERE challenge_id = :id "
                "AND contract_address = :contract"
            )

            async def status(contract: MotifyContract) -> str | None:
                address = contract.address.lower()
                rows = await world.rows(mine, id=after, contract=address)
                return rows[0]["status"] if rows else None

            async def settled() -> bool:
                await world.mine()
                return await status(new) == "archived"

            await until(settled, 60)
            assert await status(old) == "live"
    assert not any(one.declared for one in (await old.challenge(before)).participants)
    assert (await new.challenge(after)).finalized
