import { onchainTable, primaryKey } from "ponder";

export const transfers = onchainTable(
  "transfers",
  (t) => ({
    blockNumber: t.bigint().notNull(),
    logIndex: t.integer().notNull(),
    transactionHash: t.hex().notNull(),
    sender: t.hex().notNull(),
    receiver: t.hex().notNull(),
    value: t.bigint().notNull(),
  }),
  (table) => ({ pk: primaryKey({ columns: [table.blockNumber, table.logIndex] }) }),
);
