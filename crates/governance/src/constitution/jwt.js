// Token issuers and their keys.

// A JSON Web Key: RSA or EC, as parameters or as a certificate chain.
function jsonWebKey(value, name) {
  object(value, name);
  string(value.kty, `${name}.kty`);
  nonEmptyString(value.kid, `${name}.kid`);
  optional(string)(value.issuer, `${name}.issuer`);
  if (isGiven(value.x5c)) {
    nonEmptyListOf(certificateDer)(value.x5c, `${name}.x5c`);
  } else if (value.kty === "RSA") {
    nonEmptyString(value.n, `${name}.n`);
    nonEmptyString(value.e, `${name}.e`);
  } else if (value.kty === "EC") {
    for (const field of ["crv", "x", "y"]) nonEmptyString(value[field], `${name}.${field}`);
  } else {
    throw new Error(`${name} must have x5c, or n and e (RSA), or crv, x and y (EC)`);
  }
}

// One X.509 certificate, DER in base64.
function certificateDer(value, name) {
  string(value, name);
  const pem = `-----BEGIN CERTIFICATE-----\n${value}\n-----END CERTIFICATE-----\n`;
  const isBase64 = /^[A-Za-z0-9+\/]+={0,2}$/.test(value) && value.length % 4 === 0;
  if (!isBase64 || !ccf.crypto.isValidX509CertBundle(pem)) {
    fail(name, "a certificate (X.509, DER in base64)");
  }
}

function jsonWebKeySet(value, name) {
  object(value, name);
  nonEmptyListOf(jsonWebKey)(value.keys, `${name}.keys`);
}

actions.set_jwt_issuer = {
  validate(args) {
    checkArguments(args, {
      issuer: nonEmptyString,
      auto_refresh: optional(boolean),
      ca_cert_bundle_name: optional(nonEmptyString),
      jwks: optional(jsonWebKeySet),
    });
    if (!args.auto_refresh) return;
    if (!isGiven(args.ca_cert_bundle_name)) {
      throw new Error("args.ca_cert_bundle_name must be given when args.auto_refresh is true");
    }
    const authority = /^https:\/\/[^\/?#]+[^?#]*$/;
    if (!authority.test(args.issuer)) {
      throw new Error("args.issuer must be an https URL without query and fragment when args.auto_refresh is true");
    }
  },
  apply(args) {
    const name = args.ca_cert_bundle_name ?? undefined;
    if (args.auto_refresh && !governed("tls.ca_cert_bundles").has(ccf.strToBuf(name))) {
      throw new Error(`No CA cert bundle found with name '${name}'`);
    }
    const issuer = { auto_refresh: args.auto_refresh ?? false, ca_cert_bundle_name: name };
    write(governed("jwt.issuers"), ccf.strToBuf(args.issuer), issuer);
    if (isGiven(args.jwks)) ccf.setJwtPublicSigningKeys(args.issuer, issuer, args.jwks);
  },
};

actions.set_jwt_public_signing_keys = {
  validate(args) {
    checkArguments(args, { issuer: nonEmptyString, jwks: jsonWebKeySet });
  },
  apply(args) {
    const key = ccf.strToBuf(args.issuer);
    const issuer = readExisting(governed("jwt.issuers"), key, `Issuer ${args.issuer}`);
    ccf.setJwtPublicSigningKeys(args.issuer, issuer, args.jwks);
  },
};

actions.remove_jwt_issuer = {
  validate(args) {
    checkArguments(args, { issuer: nonEmptyString });
  },
  apply(args) {
    governed("jwt.issuers").delete(ccf.strToBuf(args.issuer));
    ccf.removeJwtPublicSigningKeys(args.issuer);
  },
};
