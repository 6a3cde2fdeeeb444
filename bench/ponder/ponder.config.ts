import { createConfig } from "ponder";

import { abi } from "./abi";

export default createConfig({
  database: { kind: "postgres", connectionString: process.env.BENCH_DATABASE },
  chains: {
    // Its own rate limiter is lifted: what is measured is the engine.
    bench: { id: 9400417, rpc: process.env.BENCH_RPC, maxRequestsPerSecond: 100000 },
  },
  contracts: {
    Token: {
      abi,
      chain: "bench",
      address: "0x7070707070707070707070707070707070707070",
      startBlock: 1,
      endBlock: Number(process.env.BENCH_LAST),
    },
  },
});
