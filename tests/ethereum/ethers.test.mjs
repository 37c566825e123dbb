// A token on Coco with ethers 6, over HTTP.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  ContractFactory, JsonRpcProvider, NonceManager, Signature, Wallet, parseEther,
} from "ethers";

import { eventually, keys, token, url } from "./chain.mjs";

// Coco answers faster than ethers' cache of identical reads forgets (250 ms): without this option
// the nonce read after a receipt is the one from before.
const provider = new JsonRpcProvider(url, undefined, { cacheTimeout: -1, pollingInterval: 50 });
const [ada, ben] = keys.map((key) => new Wallet(key, provider));
let coin;

before(async () => {
  const factory = new ContractFactory(token.abi, token.bytecode, ada);
  coin = await factory.deploy("Consortium Coin", "CNS", parseEther("1000"));
  await coin.waitForDeployment();
});

after(() => provider.destroy());

test("the node says which chain it is", async () => {
  const { chainId } = await provider.getNetwork();
  assert.equal(chainId, BigInt(await provider.send("net_version", [])));
  assert.ok((await provider.getBalance(ada)) > 0n);
});

test("the token is deployed", async () => {
  assert.equal(await coin.name(), "Consortium Coin");
  assert.equal(await coin.totalSupply(), parseEther("1000"));
  assert.equal(await coin.owner(), ada.address);
  const receipt = await coin.deploymentTransaction().wait();
  assert.equal(receipt.status, 1);
  assert.equal(receipt.contractAddress, await coin.getAddress());
  assert.notEqual(await provider.getCode(coin), "0x");
});

test("a transfer moves money and leaves a receipt with its event", async () => {
  const recipient = Wallet.createRandom().address;
  const sent = await coin.transfer(recipient, 7n);
  const receipt = await sent.wait();
  assert.equal(receipt.status, 1);
  assert.equal(receipt.from, ada.address);
  const [event] = receipt.logs.map((log) => coin.interface.parseLog(log));
  assert.deepEqual(event.args.toArray(), [ada.address, recipient, 7n]);
  assert.equal(await coin.balanceOf(recipient), 7n);
  // The state before is still there.
  const before = { blockTag: receipt.blockNumber - 1 };
  assert.equal(await coin.balanceOf(recipient, before), 0n);
});

test("a block holds its transactions and follows its parent", async () => {
  const { hash, blockNumber } = await (await coin.mint(ben.address, 5n)).wait();
  const block = await provider.getBlock(blockNumber, true);
  assert.ok(block.transactions.includes(hash));
  assert.equal(block.prefetchedTransactions[block.transactions.indexOf(hash)].from, ada.address);
  assert.equal(block.parentHash, (await provider.getBlock(blockNumber - 1)).hash);
  assert.equal((await provider.getTransaction(hash)).blockNumber, blockNumber);
});

test("events are found in the past and heard when they happen", async () => {
  const recipient = Wallet.createRandom().address;
  const filter = coin.filters.Transfer(null, recipient);
  const heard = [];
  await coin.on(filter, (event) => heard.push(event.args.value));
  await eventually(async () => (await provider.listenerCount()) > 0);
  for (const value of [1n, 2n, 3n]) await (await coin.transfer(recipient, value)).wait();
  // Over HTTP, ethers asks a filter again when it has seen a further block, and forgets the last one
  // it saw each time it asks: what the newest block holds may wait for the next one, and here are no
  // empty blocks. Somebody else's transfers go on.
  await eventually(async () => {
    if (heard.length === 3) return true;
    await (await coin.transfer(Wallet.createRandom().address, 1n)).wait();
    return false;
  });
  await coin.off(filter);
  assert.deepEqual(heard, [1n, 2n, 3n]);
  const past = await coin.queryFilter(filter, 0, "latest");
  assert.deepEqual(past.map((event) => event.args.value), [1n, 2n, 3n]);
});

test("a refusal of the contract arrives with its reason", async () => {
  const reason = ({ data }) => coin.interface.parseError(data);
  const stranger = coin.connect(ben);
  // Asked for its gas, before it is sent.
  await assert.rejects(stranger.mint(ben.address, 1n), (error) => {
    assert.equal(error.code, "CALL_EXCEPTION");
    assert.equal(reason(error).name, "OwnableUnauthorizedAccount");
    assert.deepEqual(reason(error).args.toArray(), [ben.address]);
    return true;
  });
  await assert.rejects(coin.transfer.staticCall(ben.address, parseEther("9999")), (error) => {
    assert.equal(error.revert.name, "ERC20InsufficientBalance");
    return true;
  });
  // Sent without asking, it is in a block all the same, and failed.
  const sent = await stranger.mint(ben.address, 1n, { gasLimit: 100_000 });
  await assert.rejects(sent.wait(), ({ receipt }) => receipt.status === 0);
});

test("a signature allows somebody else to spend (ERC-2612)", async () => {
  const [owner, spender] = [Wallet.createRandom(provider), ben];
  await (await coin.mint(owner.address, 50n)).wait();
  const { chainId } = await provider.getNetwork();
  const domain = {
    name: await coin.name(), version: "1", chainId, verifyingContract: await coin.getAddress(),
  };
  const types = {
    Permit: [
      { name: "owner", type: "address" }, { name: "spender", type: "address" },
      { name: "value", type: "uint256" }, { name: "nonce", type: "uint256" },
      { name: "deadline", type: "uint256" },
    ],
  };
  const deadline = (await provider.getBlock("latest")).timestamp + 3600;
  const permit = { owner: owner.address, spender: spender.address, value: 20n, nonce: 0n, deadline };
  const signature = await owner.signTypedData(domain, types, permit);
  const { v, r, s } = Signature.from(signature);
  const bens = coin.connect(ben);
  await (await bens.permit(owner.address, spender.address, 20n, deadline, v, r, s)).wait();
  await (await bens.transferFrom(owner.address, ben.address, 20n)).wait();
  assert.equal(await coin.balanceOf(owner), 30n);
  assert.equal(await coin.allowance(owner.address, spender.address), 0n);
});

test("a hundred transfers at once, in one batch of requests, all arrive", async () => {
  const managed = new NonceManager(ada);
  const recipient = Wallet.createRandom().address;
  const orders = Array.from({ length: 100 }, () =>
    coin.connect(managed).transfer(recipient, 1n, { gasLimit: 100_000 }),
  );
  const receipts = await Promise.all((await Promise.all(orders)).map((sent) => sent.wait()));
  assert.ok(receipts.every(({ status }) => status === 1));
  assert.equal(await coin.balanceOf(recipient), 100n);
});
