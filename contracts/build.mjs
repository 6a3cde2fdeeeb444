// Compiles the reference contracts with the npm package `solc`, the same bytes every time.
//
//   node contracts/build.mjs            write contracts/build/*.json and what the package ships
//   node contracts/build.mjs --check    exit 1 when what is committed is not what the sources give
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const solc = require("solc");

const here = dirname(fileURLToPath(import.meta.url));
const root = dirname(here);

// Contracts whose build also ships inside the Python package, and where.
const shipped = {
  GliskNFT: ["src/causeway/sandbox/artifacts/GliskNFT.json"],
  Troubles: ["src/causeway/sandbox/artifacts/Troubles.json"],
  Motify: ["src/causeway/sandbox/artifacts/Motify.json"],
  MintableToken: ["src/causeway/sandbox/artifacts/MintableToken.json"],
  SignatureValidator: ["src/causeway/auth/artifacts/SignatureValidator.json"],
};

function sources(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === "build" ? [] : sources(path);
    return entry.name.endsWith(".sol") ? [path] : [];
  });
}

// Motify's published contract is built through the intermediate representation, and ours must be:
// its functions have more arguments than the stack has room for.
const throughIr = (path) => relative(here, path).startsWith("motify");

const files = sources(here).sort();
const common = { evmVersion: "cancun", optimizer: { enabled: true, runs: 200 } };

function readImport(path) {
  const found = join(root, "node_modules", path);
  return existsSync(found)
    ? { contents: readFileSync(found, "utf8") }
    : { error: `${path} is not in node_modules: run make setup` };
}

function compile(paths, settings) {
  const input = {
    language: "Solidity",
    sources: Object.fromEntries(
      paths.map((path) => [relative(here, path), { content: readFileSync(path, "utf8") }]),
    ),
    settings: {
      ...settings,
      metadata: { bytecodeHash: "none", appendCBOR: false },
      outputSelection: {
        "*": { "*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"] },
      },
    },
  };
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: readImport }));
  // What a library's sources make the compiler warn of is its authors' affair.
  const complaints = (output.errors ?? []).filter(
    (e) => e.severity === "error" || !e.sourceLocation?.file.startsWith("@"),
  );
  for (const complaint of complaints) console.error(complaint.formattedMessage);
  if (complaints.some((complaint) => complaint.severity === "error")) process.exit(1);
  return paths.flatMap((path) =>
    Object.entries(output.contracts[relative(here, path)] ?? {}).map(([name, made]) => ({
      path,
      name,
      made,
      settings,
    })),
  );
}

const results = new Map();
for (const { path, name, made, settings } of [
  ...compile(files.filter((path) => !throughIr(path)), common),
  ...compile(files.filter(throughIr), { ...common, viaIR: true }),
]) {
  if (!made.evm.bytecode.object) continue; // an interface
  const artifact = {
    contractName: name,
    source: `contracts/${relative(here, path)}`,
    compiler: solc.version(),
    settings,
    abi: made.abi,
    bytecode: `0x${made.evm.bytecode.object}`,
    deployedBytecode: `0x${made.evm.deployedBytecode.object}`,
  };
  const text = `${JSON.stringify(artifact, null, 1)}\n`;
  results.set(join(here, "build", `${name}.json`), text);
  for (const place of shipped[name] ?? []) results.set(join(root, place), text);
}

const leftovers = existsSync(join(here, "build"))
  ? readdirSync(join(here, "build"))
      .filter((name) => name.endsWith(".json")) // folders are other compilers'
      .map((name) => join(here, "build", name))
      .filter((path) => !results.has(path))
  : [];

if (process.argv.includes("--check")) {
  const stale = [...results].filter(
    ([path, text]) => !existsSync(path) || readFileSync(path, "utf8") !== text,
  );
  for (const [path] of stale) {
    console.error(`${relative(root, path)} is not what its source gives: run make contracts`);
  }
  for (const path of leftovers) {
    console.error(`${relative(root, path)} has no source any more: delete it`);
  }
  if (stale.length + leftovers.length > 0) process.exit(1);
  console.log(`${results.size} builds agree with their sources`);
} else {
  for (const [path, text] of results) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
  console.log(`${results.size} builds written`);
}
