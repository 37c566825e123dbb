#!/usr/bin/env node
// npm `solc` behind the two options by which forge uses a compiler, so that it downloads none.

import { readFileSync } from "node:fs";
import solc from "solc";

if (process.argv.includes("--version")) {
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${solc.version()}`);
} else if (process.argv.includes("--standard-json")) {
  console.log(solc.compile(readFileSync(0, "utf8")));
} else {
  console.error("only --version and --standard-json");
  process.exit(1);
}
