// Seats: addresses of nodes, each with the operator who may put a node there without a vote.

// `host:port` as nodes publish it: a name, an IPv4 address, or an IPv6 address in brackets.
const nodeAddress = pattern(
  /^([0-9A-Za-z._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[1-9][0-9]{0,4}$/,
  "an address like 10.0.0.1:8081",
);

// The row names nobody until a node takes the seat. Whoever sits there already stays.
actions.set_node_seat = {
  validate(args) {
    checkArguments(args, { address: nodeAddress, operator_cert: certificate });
  },
  apply(args) {
    const { address, operator_cert } = args;
    write(governed("nodes.seats"), ccf.strToBuf(address), { operator_cert });
  },
};

// Nodes that have taken the seat stay; the next one is voted for again.
actions.remove_node_seat = {
  validate(args) {
    checkArguments(args, { address: nodeAddress });
  },
  apply(args) {
    const seats = governed("nodes.seats");
    const address = ccf.strToBuf(args.address);
    readExisting(seats, address, `A seat at ${args.address}`);
    seats.delete(address);
  },
};

// Whether a node takes its seat without a vote. It is asked only about nodes whose evidence is
// accepted, whose operator is that of the seat, and whose seat is free: nobody was trusted there
// (`replaces` is empty), or whoever was has fallen silent and is retired by this.
//
//   candidate = { node_id, node, address, seat, replaces: [node_id, ..] }
//
// Members have voted for the seat; nothing more is asked here. A constitution without this function
// has every node voted for.
export function mayTakeSeat(_candidate) {
  return true;
}
