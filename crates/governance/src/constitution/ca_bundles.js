// Bundles of CA certificates for outgoing connections.

actions.set_ca_cert_bundle = {
  validate(args) {
    checkArguments(args, { name: nonEmptyString, cert_bundle: certificateBundle });
  },
  apply(args) {
    write(governed("tls.ca_cert_bundles"), ccf.strToBuf(args.name), args.cert_bundle);
  },
};

actions.remove_ca_cert_bundle = {
  validate(args) {
    checkArguments(args, { name: nonEmptyString });
  },
  apply(args) {
    governed("tls.ca_cert_bundles").delete(ccf.strToBuf(args.name));
  },
};
