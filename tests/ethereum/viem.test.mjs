// A token on Coco with viem 2, over HTTP and a WebSocket.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import {
  BaseError, ContractFunctionRevertedError, createPublicClient, createWalletClient, defineChain,
  http, keccak256, parseEther, parseEventLogs, webSocket,
} from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";

import { eventually, keys, token, url, webSocketUrl } from "./chain.mjs";

const { abi, bytecode } = token;
const [ada, ben] = keys.map((key) => privateKeyToAccount(key));
const stranger = () => privateKeyToAccount(generatePrivateKey()).address;
let reader, wallet, address;

before(async () => {
  const id = await createPublicClient({ transport: http(url) }).getChainId();
  const nativeCurrency = { name: "Ether", symbol: "ETH", decimals: 18 };
  const rpcUrls = { default: { http: [url], webSocket: [webSocketUrl] } };
  const chain = defineChain({ id, name: "Coco", nativeCurrency, rpcUrls });
  const options = { chain, transport: http(url, { batch: true }), pollingInterval: 50 };
  // Like ethers, viem remembers the block number for a while.
  reader = createPublicClient({ ...options, cacheTime: 0 });
  wallet = createWalletClient({ ...options, account: ada });
  const args = ["Consortium Coin", "CNS", parseEther("1000")];
  const hash = await wallet.deployContract({ abi, bytecode, args });
  const receipt = await reader.waitForTransactionReceipt({ hash });
  assert.equal(receipt.status, "success");
  address = receipt.contractAddress;
});

const read = (functionName, ...args) => reader.readContract({ address, abi, functionName, args });

async function write(functionName, ...args) {
  const hash = await wallet.writeContract({ address, abi, functionName, args });
  return reader.waitForTransactionReceipt({ hash });
}

test("a transfer moves money and leaves a receipt with its event", async () => {
  const recipient = stranger();
  const receipt = await write("transfer", recipient, 7n);
  assert.equal(receipt.status, "success");
  const [{ eventName, args }] = parseEventLogs({ abi, logs: receipt.logs });
  assert.deepEqual([eventName, args.to, args.value], ["Transfer", recipient, 7n]);
  assert.equal(await read("balanceOf", recipient), 7n);
  const { input, blockHash } = await reader.getTransaction({ hash: receipt.transactionHash });
  assert.equal(input.slice(0, 10), "0xa9059cbb");
  assert.equal(blockHash, receipt.blockHash);
});

test("plain money is sent", async () => {
  const recipient = stranger();
  const hash = await wallet.sendTransaction({ to: recipient, value: 11n });
  const receipt = await reader.waitForTransactionReceipt({ hash });
  assert.equal(receipt.gasUsed, 21000n);
  assert.equal(await reader.getBalance({ address: recipient }), 11n);
});

test("events are watched over HTTP and over a WebSocket", async () => {
  const socket = createPublicClient({ transport: webSocket(webSocketUrl) });
  const recipient = stranger();
  const seen = [[], []];
  const stop = [reader, socket].map((client, number) =>
    client.watchContractEvent({
      address, abi, eventName: "Transfer", args: { to: recipient },
      onLogs: (logs) => seen[number].push(...logs.map(({ args }) => args.value)),
    }),
  );
  const heads = [];
  stop.push(socket.watchBlockNumber({ onBlockNumber: (number) => heads.push(number) }));
  // Watching begins in the background; what came before it is not told.
  await new Promise((resolve) => setTimeout(resolve, 500));
  for (const value of [1n, 2n, 3n]) await write("transfer", recipient, value);
  await eventually(() => seen.every((values) => values.length === 3) && heads.length >= 3);
  stop.forEach((unwatch) => unwatch());
  assert.deepEqual(seen, [[1n, 2n, 3n], [1n, 2n, 3n]]);
  const past = await reader.getContractEvents({
    address, abi, eventName: "Transfer", args: { to: recipient }, fromBlock: 0n,
  });
  assert.equal(past.length, 3);
  (await socket.transport.getRpcClient()).close();
});

test("a refusal of the contract arrives with its reason", async () => {
  const attempt = reader.simulateContract({
    account: ben, address, abi, functionName: "mint", args: [ben.address, 1n],
  });
  await assert.rejects(attempt, (error) => {
    assert.ok(error instanceof BaseError);
    const reverted = error.walk((cause) => cause instanceof ContractFunctionRevertedError);
    assert.equal(reverted.data.errorName, "OwnableUnauthorizedAccount");
    return true;
  });
});

test("several calls are simulated on one state", async () => {
  const recipient = stranger();
  const [, balance] = (await reader.simulateCalls({
    account: ada.address,
    calls: [
      { to: address, abi, functionName: "transfer", args: [recipient, 9n] },
      { to: address, abi, functionName: "balanceOf", args: [recipient] },
    ],
  })).results;
  assert.equal(balance.result, 9n);
  assert.equal(await read("balanceOf", recipient), 0n, "and nothing has happened");
});

test("fees and proofs", async () => {
  const fees = await reader.estimateFeesPerGas();
  const { baseFeePerGas, gasUsedRatio } = await reader.getFeeHistory({
    blockCount: 4, rewardPercentiles: [50],
  });
  assert.ok(fees.maxFeePerGas >= baseFeePerGas.at(-1));
  assert.equal(baseFeePerGas.length, gasUsedRatio.length + 1);
  const { storageProof, codeHash } = await reader.getProof({ address, storageKeys: ["0x0"] });
  assert.equal(codeHash, keccak256(await reader.getCode({ address })));
  assert.equal(storageProof[0].value, BigInt(await reader.getStorageAt({ address, slot: "0x0" })));
});

test("an allowance by signed message (EIP-712) is accepted by the contract", async () => {
  const deadline = (await reader.getBlock()).timestamp + 3600n;
  const domain = {
    name: "Consortium Coin", version: "1", chainId: reader.chain.id, verifyingContract: address,
  };
  const fields = { owner: "address", spender: "address", value: "uint256", nonce: "uint256", deadline: "uint256" };
  const types = { Permit: Object.entries(fields).map(([name, type]) => ({ name, type })) };
  const message = { owner: ada.address, spender: ben.address, value: 20n, nonce: 0n, deadline };
  const signature = await ada.signTypedData({ domain, types, primaryType: "Permit", message });
  const [r, s, v] = [signature.slice(0, 66), `0x${signature.slice(66, 130)}`, `0x${signature.slice(130)}`];
  await write("permit", ada.address, ben.address, 20n, deadline, Number(v), r, s);
  assert.equal(await read("allowance", ada.address, ben.address), 20n);
});
