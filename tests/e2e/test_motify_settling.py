"""From the end of a challenge to its archive: real chain, real providers' wire, real database."""

from __future__ import annotations

import pytest

from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.motify_chain import USDC, MotifyContract, people
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
