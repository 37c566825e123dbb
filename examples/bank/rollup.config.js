import resolve from "@rollup/plugin-node-resolve";
import typescript from "@rollup/plugin-typescript";

// One file per source module, so that a stack trace names the module that was written.
export default {
  input: "src/endpoints.ts",
  output: { dir: "dist/src", format: "es", preserveModules: true, preserveModulesRoot: "src" },
  plugins: [resolve(), typescript({ outDir: "dist/src" })],
};
