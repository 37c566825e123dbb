import { ccf, DigestAlgorithm, SigningAlgorithm } from "@microsoft/ccf-app/global.js";

const message = ccf.strToBuf("the quick brown fox");

function same(left: ArrayBuffer, right: ArrayBuffer): boolean {
  const a = new Uint8Array(left);
  const b = new Uint8Array(right);
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

function signs(algorithm: SigningAlgorithm, key: { privateKey: string; publicKey: string }) {
  const signature = ccf.crypto.sign(algorithm, key.privateKey, message);
  const other = ccf.strToBuf("the quick brown cat");
  return (
    ccf.crypto.verifySignature(algorithm, key.publicKey, signature, message) &&
    !ccf.crypto.verifySignature(algorithm, key.publicKey, signature, other)
  );
}

// Every family of ccf.crypto once, each with a result that must be true.
export function exercise(): Record<string, boolean> {
  const crypto = ccf.crypto;
  const ec = crypto.generateEcdsaKeyPair("secp256r1");
  const ec384 = crypto.generateEcdsaKeyPair("secp384r1");
  const rsa = crypto.generateRsaKeyPair(2048);
  const ed = crypto.generateEddsaKeyPair("curve25519");
  const aes = crypto.generateAesKey(256);
  const hashes: DigestAlgorithm[] = ["SHA-256", "SHA-384", "SHA-512"];
  const lengths = hashes.map((hash) => crypto.digest(hash, message).byteLength);

  const oaep = { name: "RSA-OAEP" } as const;
  const kwp = { name: "AES-KWP" } as const;
  const both = { name: "RSA-OAEP-AES-KWP", aesKeySize: 256 } as const;
  const publicKey = ccf.strToBuf(rsa.publicKey);
  const privateKey = ccf.strToBuf(rsa.privateKey);
  const longKey = ccf.strToBuf(rsa.privateKey);
  const wrapsByRsa = crypto.unwrapKey(crypto.wrapKey(aes, publicKey, oaep), privateKey, oaep);
  const wrapsByAes = crypto.unwrapKey(crypto.wrapKey(longKey, aes, kwp), aes, kwp);
  const wrapsByBoth = crypto.unwrapKey(crypto.wrapKey(longKey, publicKey, both), privateKey, both);

  return {
    ecdsa256: signs({ name: "ECDSA", hash: "SHA-256" }, ec),
    ecdsa384: signs({ name: "ECDSA", hash: "SHA-384" }, ec384),
    rsaPss: signs({ name: "RSA-PSS", hash: "SHA-256", saltLength: 32 }, rsa),
    eddsa: signs({ name: "EdDSA" }, ed),
    digests: lengths.join() === "32,48,64",
    rsaOaep: same(wrapsByRsa, aes),
    aesKwp: same(wrapsByAes, longKey),
    rsaOaepAesKwp: same(wrapsByBoth, longKey),
    ecJwk: crypto.pubJwkToPem(crypto.pubPemToJwk(ec.publicKey)) === ec.publicKey,
    rsaJwk: crypto.pubRsaJwkToPem(crypto.pubRsaPemToJwk(rsa.publicKey)) === rsa.publicKey,
    edJwk: crypto.pubEddsaJwkToPem(crypto.pubEddsaPemToJwk(ed.publicKey)) === ed.publicKey,
    kid: crypto.pubPemToJwk(ec.publicKey, "my-key").kid === "my-key",
  };
}
