// Compiles contracts/Token.sol with npm `solc` into dist/Token.json: ABI and bytecode.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import solc from "solc";

const folder = new URL("./", import.meta.url);
const source = (path) => readFileSync(new URL(path, folder), "utf8");
const input = {
  language: "Solidity",
  sources: { "contracts/Token.sol": { content: source("contracts/Token.sol") } },
  settings: {
    evmVersion: "prague",
    optimizer: { enabled: true, runs: 200 },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
  },
};
const output = JSON.parse(
  solc.compile(JSON.stringify(input), { import: (path) => ({ contents: source(path) }) }),
);
for (const { formattedMessage } of output.errors ?? []) console.error(formattedMessage);
const { abi, evm } = output.contracts["contracts/Token.sol"].Token;
mkdirSync(new URL("dist/", folder), { recursive: true });
const artifact = { abi, bytecode: `0x${evm.bytecode.object}` };
writeFileSync(new URL("dist/Token.json", folder), JSON.stringify(artifact, null, 2));
