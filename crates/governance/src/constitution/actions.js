// The table of actions. Every other file adds to it:
//   actions.name = { validate(args), apply(args, proposalId) }
// `validate` throws when the arguments are wrong whatever the state; `apply` throws when the state
// forbids the action, which fails the proposal as a whole.
const actions = {};

const noArguments = (args) => checkArguments(args, {});
