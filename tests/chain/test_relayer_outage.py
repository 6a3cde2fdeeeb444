"""A running relayer goes on after its database and its provider were away."""

from __future__ import annotations

import asyncio

from sqlalchemy.exc import SQLAlchemyError

from causeway.relayer.lane import RelayerSettings
from causeway.relayer.relayer import Relayer
from causeway.sandbox.anvil import AnvilNode
from causeway.sandbox.glisk_chain import GliskContract
from causeway.store import migrate
from causeway.store.engine import Database
from tests.chain.reveals import World, chain_at
from tests.chain.send_proxy import send_proxy
from tests.postgres_fixtures import PostgresServer


async def settled(world: World, token_id: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                if (await world.units())[token_id][0] == "settled":
                    return
            except SQLAlchemyError:
                pass  # our own connections were cut, too
            await asyncio.sleep(0.05)


async def test_it_outlives_its_database_and_its_provider(
    postgres_server: PostgresServer, anvil: AnvilNode, glisk_contract: GliskContract
) -> None:
    database = Database(postgres_server.create("outage"))
    await migrate.upgrade(database, [migrate.kernel_line()])
    stop = asyncio.Event()
    async with send_proxy(anvil.url) as proxy:
        chain = chain_at(proxy.url, anvil.chain_id)
        world = await World.make(database, anvil, glisk_contract, chain, finality=0, holder="gone")
        await world.mint(3)
        settings = RelayerSettings(poll_s=0.1, lease_s=2)
        signer = world.relayer.lane.signer
        relayer = Relayer(database, chain, signer, [world.kind], settings=settings)
        async with database.transaction() as session:
            connection = await session.connection()
            await connection.exec_driver_sql("DELETE FROM causeway.leases")
        running = asyncio.create_task(relayer.run(stop))
        try:
            await world.file(1)
            await settled(world, 1)
            await asyncio.to_thread(postgres_server.restart)
            await world.file(2)
            await settled(world, 2)
            proxy.down = True
            await world.file(3)
            async with asyncio.timeout(30):
                while not proxy.refused:
                    await asyncio.sleep(0.02)
            proxy.down = False
            await settled(world, 3)
            assert not running.done()
        finally:
            stop.set()
            async with asyncio.timeout(10):
                await running
        await world.exactly_once(1, 2, 3)
        await chain.close()
    await database.close()
