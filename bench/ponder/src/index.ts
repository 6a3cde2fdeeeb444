import { ponder } from "ponder:registry";
import { transfers } from "ponder:schema";

ponder.on("Token:Transfer", async ({ event, context }) => {
  await context.db.insert(transfers).values({
    blockNumber: event.block.number,
    logIndex: event.log.logIndex,
    transactionHash: event.transaction.hash,
    sender: event.args.from,
    receiver: event.args.to,
    value: event.args.value,
  });
});
