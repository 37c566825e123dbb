// Nodes.

actions.set_node_data = {
  validate(args) {
    checkArguments(args, { node_id: entityId, node_data: optional(anything) });
  },
  apply(args) {
    const id = ccf.strToBuf(args.node_id);
    const node = readExisting(governed("nodes.info"), id, `Node ${args.node_id}`);
    write(governed("nodes.info"), id, { ...node, node_data: args.node_data ?? undefined });
  },
};

// The node gets a certificate of the service, and with the next signature it begins to learn the
// ledger. Nothing changes for a node that is trusted already.
actions.transition_node_to_trusted = {
  validate(args) {
    checkArguments(args, {
      node_id: entityId,
      valid_from: moment,
      validity_period_days: optional(days),
    });
  },
  apply(args) {
    const id = ccf.strToBuf(args.node_id);
    const node = readExisting(governed("nodes.info"), id, `Node ${args.node_id}`);
    if (node.status === "Trusted") return;
    if (node.status !== "Pending") throw new Error(`Node ${args.node_id} is ${node.status}`);
    const longest = readConfig().maximum_node_certificate_validity_days ?? 365;
    const validity = args.validity_period_days ?? longest;
    if (validity > longest) {
      throw new Error(`validity_period_days must be at most ${longest}, not ${validity}`);
    }
    const endorsed = ccf.network.generateEndorsedCertificate(
      node.certificate_signing_request,
      args.valid_from,
      validity,
    );
    governed("nodes.endorsed_certificates").set(id, ccf.strToBuf(endorsed));
    const ledger_secret_seqno = ccf.network.getLatestLedgerSecretSeqno();
    write(governed("nodes.info"), id, { ...node, status: "Trusted", ledger_secret_seqno });
  },
};

// A node that only asked to join is forgotten; one that takes part is retired; one that is not there
// any more is gone. The last one stays: without it there is no service.
actions.remove_node = {
  validate(args) {
    checkArguments(args, { node_id: entityId });
  },
  apply(args) {
    const id = ccf.strToBuf(args.node_id);
    const nodes = governed("nodes.info");
    const node = read(nodes, id);
    if (node === undefined || node.status === "Retired") return;
    if (node.status === "Pending") {
      nodes.delete(id);
      return;
    }
    let trusted = 0;
    nodes.forEach((bytes) => {
      if (ccf.bufToJsonCompatible(bytes).status === "Trusted") trusted += 1;
    });
    if (trusted < 2) throw new Error(`Node ${args.node_id} is the only one that is trusted`);
    write(nodes, id, { ...node, status: "Retired" });
  },
};

actions.set_node_certificate_validity = notOffered({
  node_id: entityId,
  valid_from: moment,
  validity_period_days: optional(days),
});

actions.set_all_nodes_certificate_validity = notOffered({
  valid_from: moment,
  validity_period_days: optional(days),
});
