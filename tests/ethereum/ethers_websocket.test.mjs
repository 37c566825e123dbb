// A token on Coco with ethers 6, over a WebSocket: what happens is told at once.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ContractFactory, Wallet, WebSocketProvider, parseEther } from "ethers";

import { eventually, keys, token, webSocketUrl } from "./chain.mjs";

const provider = new WebSocketProvider(webSocketUrl, undefined, { cacheTimeout: -1 });
const ada = new Wallet(keys[0], provider);
let coin;

before(async () => {
  const factory = new ContractFactory(token.abi, token.bytecode, ada);
  coin = await factory.deploy("Consortium Coin", "CNS", parseEther("1000"));
  await coin.waitForDeployment();
});

after(() => provider.destroy());

test("events, blocks and pending transactions are pushed", async () => {
  const recipient = Wallet.createRandom().address;
  const [values, blocks, pending] = [[], [], []];
  await coin.on(coin.filters.Transfer(null, recipient), (event) => values.push(event.args.value));
  await provider.on("block", (number) => blocks.push(number));
  await provider.on("pending", (hash) => pending.push(hash));
  const hashes = [];
  for (const value of [1n, 2n, 3n]) {
    const receipt = await (await coin.transfer(recipient, value)).wait();
    assert.equal(receipt.status, 1);
    hashes.push(receipt.hash);
  }
  await eventually(() => values.length === 3);
  await eventually(() => blocks.length >= 3);
  await eventually(() => hashes.every((hash) => pending.includes(hash)));
  assert.deepEqual(values, [1n, 2n, 3n]);
  assert.deepEqual(blocks, [...new Set(blocks)].sort((a, b) => a - b));
  await provider.removeAllListeners();
});

test("reads and reverts are as over HTTP", async () => {
  assert.equal(await coin.symbol(), "CNS");
  await assert.rejects(coin.transfer(ada.address, parseEther("9999")), ({ data }) => {
    assert.equal(coin.interface.parseError(data).name, "ERC20InsufficientBalance");
    return true;
  });
});
