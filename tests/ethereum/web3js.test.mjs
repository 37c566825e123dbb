// A token on Coco with web3.js 4, over HTTP and a WebSocket.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Web3 } from "web3";

import { eventually, keys, token, url, webSocketUrl } from "./chain.mjs";

const web3 = new Web3(url);
const socket = new Web3(webSocketUrl);
const [ada, ben] = keys.map((key) => web3.eth.accounts.wallet.add(key).at(-1).address);
const stranger = () => web3.eth.accounts.create().address;
let coin;

before(async () => {
  web3.eth.transactionPollingInterval = 50;
  const contract = new web3.eth.Contract(token.abi);
  const args = ["Consortium Coin", "CNS", web3.utils.toWei("1000", "ether")];
  coin = await contract.deploy({ data: token.bytecode, arguments: args }).send({ from: ada });
});

after(() => socket.provider.disconnect());

test("a transfer moves money and leaves a receipt with its event", async () => {
  const recipient = stranger();
  const receipt = await coin.methods.transfer(recipient, 7n).send({ from: ada });
  assert.equal(receipt.status, 1n);
  assert.equal(receipt.events.Transfer.returnValues.value, 7n);
  assert.equal(await coin.methods.balanceOf(recipient).call(), 7n);
  const found = await web3.eth.getTransactionReceipt(receipt.transactionHash);
  assert.equal(found.blockHash, receipt.blockHash);
});

test("plain money is sent", async () => {
  const recipient = stranger();
  const receipt = await web3.eth.sendTransaction({ from: ada, to: recipient, value: 11n });
  assert.equal(receipt.gasUsed, 21000n);
  assert.equal(await web3.eth.getBalance(recipient), 11n);
});

test("events are found in the past and pushed when they happen", async () => {
  const recipient = stranger();
  const over = new socket.eth.Contract(token.abi, coin.options.address);
  const pushed = [];
  const events = over.events.Transfer({ filter: { to: recipient } });
  events.on("data", ({ returnValues }) => pushed.push(returnValues.value));
  const heads = await socket.eth.subscribe("newBlockHeaders");
  const numbers = [];
  heads.on("data", ({ number }) => numbers.push(number));
  await eventually(() => events.id !== undefined);
  for (const value of [1n, 2n, 3n]) await coin.methods.transfer(recipient, value).send({ from: ada });
  await eventually(() => pushed.length === 3 && numbers.length >= 3);
  assert.deepEqual(pushed, [1n, 2n, 3n]);
  await socket.eth.clearSubscriptions();
  const past = await coin.getPastEvents("Transfer", { filter: { to: recipient }, fromBlock: 0 });
  assert.deepEqual(past.map(({ returnValues }) => returnValues.value), [1n, 2n, 3n]);
});

test("a refusal of the contract arrives with its reason", async () => {
  await assert.rejects(coin.methods.mint(ben, 1n).call({ from: ben }), (error) => {
    assert.equal(error.cause.errorName, "OwnableUnauthorizedAccount");
    return true;
  });
});

test("a batch of requests", async () => {
  const batch = new web3.BatchRequest();
  const calls = ["eth_blockNumber", "eth_chainId", "net_version"];
  const answers = calls.map((method, id) => batch.add({ jsonrpc: "2.0", id, method, params: [] }));
  await batch.execute();
  const [, chainId, networkId] = await Promise.all(answers);
  assert.equal(BigInt(chainId), BigInt(networkId));
});
