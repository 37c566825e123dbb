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

actions.transition_node_to_trusted = notOffered({
  node_id: entityId,
  valid_from: moment,
  validity_period_days: optional(days),
});

actions.remove_node = notOffered({ node_id: entityId });

actions.set_node_certificate_validity = notOffered({
  node_id: entityId,
  valid_from: moment,
  validity_period_days: optional(days),
});

actions.set_all_nodes_certificate_validity = notOffered({
  valid_from: moment,
  validity_period_days: optional(days),
});
